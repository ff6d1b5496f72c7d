"""Personal fields of orders: written sealed, read opened, sealed anew when the key changes."""

import asyncio
from dataclasses import dataclass
from functools import partial

from app.fulfilment.delivery import Delivery, full_mobile
from app.fulfilment.delivery_store import (
    SealedDelivery,
    SealedInvoice,
    named_kids,
    old_deliveries,
    old_invoices,
    orders_by_mobile,
    put_delivery,
    put_invoice,
    read_delivery,
    read_invoice,
    reseal_deliveries,
    reseal_invoice,
)
from app.fulfilment.invoice import InvoiceWish
from app.fulfilment.seals import SETTING, FieldSeals
from app.kernel.errors import BadConfiguration, ShardUnavailable
from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.orders.life_store import move_order
from app.orders.order import Order, OrderEvent
from app.orders.store import lock_order
from app.payments.calls import count_over
from app.storage.shards import Shard, Shards


@dataclass(frozen=True, slots=True)
class Addresses:
    """The sealed fields of every shard, and the keys to them."""

    shards: Shards
    seals: FieldSeals

    async def change(self, key: OrderKey, delivery: Delivery, *, actor: str) -> bool:
        """
        Write where an order goes; the same details again change nothing.

        Returns:
            False if the order has left, or its timeline is too long for another change.
        """
        async with self._shard(key).transaction() as connection:
            order = await lock_order(connection, key)
            assert order is not None, key
            known = await read_delivery(connection, key)
            if known is not None and self.open(key, known) == delivery:
                return True
            if not await move_order(
                connection, key, OrderEvent.DELIVERY_CHANGED, actor=actor, detail={}
            ):
                return False
            await put_delivery(connection, key, self.seal(key, delivery))
        return True

    async def find(self, key: OrderKey) -> Delivery | None:
        """Return where an order goes, in clear; None if nobody has said."""
        async with self._shard(key).connection() as connection:
            sealed = await read_delivery(connection, key)
        return None if sealed is None else self.open(key, sealed)

    async def search(self, mobile: str, orders_max: int) -> list[Order]:
        """Return orders of all shards that go to a phone number, newest first."""
        hashes = self.seals.hashes_of_mobile(full_mobile(mobile))
        found: list[Order] = []
        for shard in self.shards.all:
            found += await orders_by_mobile(shard, hashes, orders_max)
        found.sort(key=lambda order: (order.placed_at, order.key), reverse=True)
        return found[:orders_max]

    async def wish_invoice(self, key: OrderKey, wish: InvoiceWish) -> None:
        """Write to whom an order's invoice goes."""
        async with self._shard(key).transaction() as connection:
            await put_invoice(connection, key, self.seal_invoice(key, wish))

    async def sealed_invoice(self, key: OrderKey) -> SealedInvoice | None:
        """Return to whom an order's invoice goes, still sealed but for its kind."""
        async with self._shard(key).connection() as connection:
            return await read_invoice(connection, key)

    async def check_keys(self) -> None:
        """
        Check that every key which some row names is configured here.

        A shard that is away is not asked: it stops no process, and a field that it then
        turns out to hold under another key is refused when it is read.

        Raises:
            BadConfiguration: a key was taken away too early; the sentence names it.
        """
        told = await asyncio.gather(
            *(named_kids(shard) for shard in self.shards.all), return_exceptions=True
        )
        named: set[str] = set()
        for one in told:
            if isinstance(one, ShardUnavailable):
                continue
            if isinstance(one, BaseException):
                raise one
            named |= one
        if missing := sorted(named - self.seals.kids):
            raise BadConfiguration(
                setting=SETTING,
                kids=" and ".join(missing),
                why="rows are sealed under it, and it is not among the keys",
            )

    async def reseal_once(self, rows_max: int) -> int:
        """
        Seal anew what is under a key that only opens; one bounded pass over every shard.

        Rows under a key that this process does not know are left to one that does.

        Returns:
            How many rows were sealed anew: 0 when those keys may be taken away.

        Raises:
            ShardUnavailable: of one; the others have had their turn. Call again.
        """
        if not self.seals.old_kids:
            return 0
        return await count_over(self.shards.all, partial(self._reseal_on, rows_max))

    async def _reseal_on(self, rows_max: int, shard: Shard) -> int:
        async with shard.transaction() as connection:
            old = await old_deliveries(connection, self.seals.old_kids, rows_max)
            if old:
                anew = [(key, self.seal(key, self.open(key, sealed))) for key, sealed in old]
                await reseal_deliveries(connection, anew)
            wishes = await old_invoices(connection, self.seals.old_kids, rows_max)
            for key, sealed in wishes:
                opened = self.open_invoice(key, sealed)
                await reseal_invoice(connection, key, self.seal_invoice(key, opened))
            resealed = len(old) + len(wishes)
            if resealed:
                failpoint("resealing.before_commit")
        if resealed:
            failpoint("resealing.after_commit")
        return resealed

    def seal(self, key: OrderKey, delivery: Delivery) -> SealedDelivery:
        return SealedDelivery(
            kid=self.seals.kid,
            receiver=self.seals.seal(key, "receiver", delivery.receiver),
            mobile=self.seals.seal(key, "mobile", delivery.mobile),
            address=self.seals.seal(key, "address", delivery.address),
            mobile_index=self.seals.hash_mobile(full_mobile(delivery.mobile)),
        )

    def open(self, key: OrderKey, sealed: SealedDelivery) -> Delivery:
        return Delivery(
            receiver=self.seals.open(sealed.kid, key, "receiver", sealed.receiver),
            mobile=self.seals.open(sealed.kid, key, "mobile", sealed.mobile),
            address=self.seals.open(sealed.kid, key, "address", sealed.address),
        )

    def seal_invoice(self, key: OrderKey, wish: InvoiceWish) -> SealedInvoice:
        number = wish.tax_number
        return SealedInvoice(
            kind=wish.kind,
            kid=self.seals.kid,
            title=self.seals.seal(key, "title", wish.title),
            tax_number=None if number is None else self.seals.seal(key, "tax_number", number),
        )

    def open_invoice(self, key: OrderKey, sealed: SealedInvoice) -> InvoiceWish:
        number = sealed.tax_number
        return InvoiceWish(
            kind=sealed.kind,
            title=self.seals.open(sealed.kid, key, "title", sealed.title),
            tax_number=(
                None if number is None else self.seals.open(sealed.kid, key, "tax_number", number)
            ),
        )

    def _shard(self, key: OrderKey) -> Shard:
        return self.shards.of(key.sale, key.bucket)
