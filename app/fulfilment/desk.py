"""The desk: what the routes of paid orders need, and what they share."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from app.fulfilment.addresses import Addresses
from app.fulfilment.claims import Claims
from app.fulfilment.parcel_store import read_notes, read_review, read_shipment
from app.fulfilment.parcels import Outcome, Parcels
from app.fulfilment.review import REVIEW_MACHINE
from app.fulfilment.tally import DELIVERY, INVOICE, UnreadableTally
from app.fulfilment.views import (
    FulfilmentView,
    InvoiceView,
    ReviewView,
    view_case,
    view_invoice,
    view_masked,
    view_note,
    view_review,
    view_shipment,
)
from app.kernel.errors import SealKeyMissing
from app.kernel.ids import OrderKey
from app.orders.desk import OrderDesk
from app.orders.order import Order, OrderState
from app.orders.views import MaskedDeliveryView, OrderView
from app.storage.shards import Shard, Shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Fulfilment:
    """The acts of this stage, made once in `wiring`."""

    shards: Shards
    addresses: Addresses
    parcels: Parcels
    claims: Claims
    unreadable: UnreadableTally
    now: Callable[[], datetime]

    async def delivery_of_order(self, key: OrderKey) -> MaskedDeliveryView | None:
        """Show where an order goes, masked; without the key, that it cannot be read now."""
        try:
            delivery = await self.addresses.find(key)
        except SealKeyMissing as error:
            self.unreadable.left_out(DELIVERY, error)
            return MaskedDeliveryView(unreadable=True)
        return None if delivery is None else view_masked(delivery)

    async def invoice_of_order(self, key: OrderKey) -> InvoiceView | None:
        """Show to whom an order's invoice goes, likewise."""
        sealed = await self.addresses.sealed_invoice(key)
        if sealed is None:
            return None
        try:
            return view_invoice(self.addresses.open_invoice(key, sealed))
        except SealKeyMissing as error:
            self.unreadable.left_out(INVOICE, error)
            return InvoiceView(kind=sealed.kind, unreadable=True)

    async def take_back(self, key: OrderKey) -> bool:
        """Cancel a paid order for its shopper where the policy allows it; see Parcels."""
        outcome = await self.parcels.take_back(key, self.now())
        return outcome in {Outcome.DONE, Outcome.ALREADY}


@dataclass(frozen=True, slots=True, kw_only=True)
class FulfilmentDesk:
    """The acts, and the desk of orders that finds and describes what they act on."""

    orders: OrderDesk
    acts: Fulfilment

    async def describe(self, order_id: str, key: OrderKey) -> OrderView:
        """Describe an order that is known to have a row, as it is now."""
        found = await self.orders.read(key)
        assert isinstance(found, Order), key
        return await self.orders.describe(order_id, found)

    async def describe_whole(self, order_id: str, order: Order) -> FulfilmentView:
        """Describe an order with all that operators see of it."""
        key, acts = order.key, self.acts
        async with self.shard(key).connection() as connection:
            review = await read_review(connection, key)
            shipment = await read_shipment(connection, key)
            notes = await read_notes(connection, key)
        return FulfilmentView(
            order=await self.orders.describe(order_id, order),
            review=await self._waiting(order) if review is None else view_review(review),
            shipment=None if shipment is None else view_shipment(shipment),
            after_sales=[view_case(case) for case in await acts.claims.of_order(key)],
            invoice=await acts.invoice_of_order(key),
            notes=[view_note(note) for note in notes],
        )

    async def _waiting(self, order: Order) -> ReviewView | None:
        """Say that a review is due, where the policy wants one and nobody has looked."""
        if order.state is not OrderState.PAID:
            return None
        policy = await self.acts.parcels.policy_of(order.key.sale)
        if not policy.needs_review(order):
            return None
        return ReviewView(state=REVIEW_MACHINE.start, reason=None, decided_by=None, decided_at=None)

    def shard(self, key: OrderKey) -> Shard:
        return self.acts.shards.of(key.sale, key.bucket)
