"""
The desk: what the routes of orders need, and what they share.

Reads an order for whoever asks, joins the lists of all shards, and cancels.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from app.kernel.ids import OrderKey
from app.orders.closer import AttemptsSettled, SettleAttempts
from app.orders.confirmations import Confirmations
from app.orders.groups.wish import group_of_order
from app.orders.order import Order, OrderReason, OrderState, Ticket
from app.orders.placement import Placement
from app.orders.sealing import OrderIds
from app.orders.store import (
    CloseAsked,
    ask_to_close,
    close_orders,
    orders_of_sale,
    orders_of_shopper,
    read_ticket,
)
from app.orders.views import MaskedDeliveryView, OrderView, view_order, view_ticket_state
from app.sales.catalog import Catalog
from app.storage.shards import Shard, Shards

MoneyOfOrder: TypeAlias = Callable[[OrderKey], Awaitable[tuple[list[Any], list[Any]]]]
"""Views of an order's payments and refunds; a later stage knows them."""
DeliveryOfOrder: TypeAlias = Callable[[OrderKey], Awaitable[MaskedDeliveryView | None]]
"""Where an order goes, masked; likewise."""
TakeBack: TypeAlias = Callable[[OrderKey], Awaitable[bool]]
"""Cancel a paid order and refund it, if its sale's policy says so; likewise."""
Before: TypeAlias = tuple[datetime, OrderKey]

SETTLE_SECONDS = 2.0  # how long a cancel waits for providers before it answers `closing`


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderDesk:
    """The collaborators of the order routes, made once in `wiring`."""

    shards: Shards
    catalog: Catalog
    placement: Placement
    confirmations: Confirmations
    ids: OrderIds
    settle_attempts: SettleAttempts
    money_of_order: MoneyOfOrder
    delivery_of_order: DeliveryOfOrder
    take_back: TakeBack
    count_answer: Callable[[str, str], None]
    now_ms: Callable[[], int]

    async def read_own(self, order_id: str, shopper: str) -> Order | Ticket | None:
        """Return a shopper's own order or ticket; None for everybody else's."""
        key = self.ids.read_own(order_id, shopper)
        if key is None:
            return None
        found = await self.read(key)
        return None if isinstance(found, Order) and found.shopper != shopper else found

    async def read(self, key: OrderKey) -> Order | Ticket | None:
        """Return what is known of an id that we gave out, whoever's it is."""
        return await read_ticket(self.shards.of(key.sale, key.bucket), key)

    async def cancel(self, order: Order) -> CloseAsked:
        """
        Begin to close a shopper's order, and end it at once where nothing is open.

        While a provider is still asked the order stays closing, and the closer
        carries on. A paid order is refunded where its sale's policy allows it.
        """
        shard = self.shards.of(order.key.sale, order.key.bucket)
        async with shard.transaction() as connection:
            asked = await ask_to_close(
                connection, order.key, OrderReason.CANCELLED_BY_SHOPPER, actor="shopper"
            )
        if asked in {CloseAsked.CLOSING, CloseAsked.ALREADY_ENDING}:
            await self._end_if_settled(shard, order.key)
        elif asked is CloseAsked.REFUSED and await self.take_back(order.key):
            return CloseAsked.ALREADY_ENDING
        return asked

    async def describe(self, order_id: str, found: Order | Ticket) -> OrderView:
        """Describe an order or ticket with all that its shopper may see of it."""
        sale = await self.catalog.by_number(found.key.sale)
        assert sale is not None, "an order of no sale"
        if isinstance(found, Ticket):
            return view_ticket_state(order_id, sale.id, found)
        payments, refunds = await self.money_of_order(found.key)
        group = group_of_order(self.ids, found)
        view = view_order(order_id, sale, found, payments, refunds, group)
        return msgspec.structs.replace(
            view,
            delivery=await self.delivery_of_order(found.key),
            group=group_of_order(self.ids, found),
        )

    async def _end_if_settled(self, shard: Shard, key: OrderKey) -> None:
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                settled = await self.settle_attempts([key])
        except TimeoutError:
            return
        if settled.get(key) is AttemptsSettled.CLOSED:
            await close_orders(shard, key.sale, key.bucket, [key])

    async def list_own(
        self, shopper: str, before: Before | None, state: OrderState | None, orders_max: int
    ) -> list[Order]:
        """Return a shopper's orders of all shards, newest first."""
        parts = await asyncio.gather(
            *(
                orders_of_shopper(shard, shopper, before, state, orders_max)
                for shard in self.shards.all
            )
        )
        return newest(parts, orders_max)

    async def list_all(
        self, sale: int | None, before: Before | None, state: OrderState | None, orders_max: int
    ) -> list[Order]:
        """Return orders of all shards, of one sale or of every one, newest first."""
        parts = await asyncio.gather(
            *(orders_of_sale(shard, sale, before, state, orders_max) for shard in self.shards.all)
        )
        return newest(parts, orders_max)


def newest(parts: Sequence[Sequence[Order]], orders_max: int) -> list[Order]:
    """Join lists that are newest first into one, as long as asked for."""
    joined = [order for part in parts for order in part]
    joined.sort(key=lambda order: (order.placed_at, order.key), reverse=True)
    return joined[:orders_max]
