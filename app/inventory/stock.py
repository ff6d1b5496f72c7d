"""
Where a sale's units are: for operators in full, for shoppers in a band.

Postgres says what is granted and reserved; the open epoch's state says what is
left to sell this instant. A server that is away leaves `remaining` untold.
"""

import asyncio
import time
from typing import Any

import msgspec
from redis.asyncio import Redis

from app.inventory.lease import BucketMode, gate_of
from app.inventory.picture import Offset, take_picture
from app.inventory.stock_store import read_available, read_buckets, read_pool
from app.kernel.errors import DoorbusterError, ShardUnavailable
from app.sales.sale import Sale
from app.storage.keys import BucketKeys
from app.storage.shards import Shards

AVAILABLE_FRESH_SECONDS = 1.0  # how old the number behind a stock band may be
GATE_WAIT_SECONDS = 2.0  # how long a pause waits to be seen in the buckets
_GATE_POLL_SECONDS = 0.05


class BucketStock(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket; `remaining` and `unflushed` are null while its server does not tell."""

    bucket: int
    epoch: int
    state: str
    granted: int
    reserved: int
    returning: int
    paid: int
    remaining: int | None
    unflushed: int | None
    recover_reason: str | None


class SaleStock(msgspec.Struct, frozen=True, kw_only=True):
    """Where every unit of a sale is."""

    sale: str
    stock_total: int
    pool: int
    in_transit: int
    granted: int
    reserved: int
    remaining: int | None
    unflushed: int | None
    returning: int
    paid: int
    epoch: int
    buckets: list[BucketStock]


class Stock:
    """Reads stock; one per api process."""

    def __init__(self, shards: Shards, redis: Redis, deployment: str) -> None:
        self._shards = shards
        self._redis = redis
        self._deployment = deployment
        self._available: dict[int, tuple[float, int]] = {}

    async def available(self, sale: Sale) -> int | None:
        """Return the units that can still be sold, a second old at most; None if not known."""
        known = self._available.get(sale.number)
        now = time.monotonic()
        if known is None or now - known[0] > AVAILABLE_FRESH_SECONDS:
            try:
                known = (now, await read_available(self._shards, sale))
            except ShardUnavailable:
                return None if known is None else known[1]
            self._available[sale.number] = known
        return known[1]

    async def read(self, sale: Sale) -> SaleStock:
        """
        Return where every unit of a sale is.

        Raises:
            ShardUnavailable: a shard of the sale does not answer.
        """
        pool = await read_pool(self._shards, sale)
        rows = await read_buckets(self._shards, sale)
        buckets = [await self._bucket(sale, row) for row in rows]
        return SaleStock(
            sale=sale.id,
            stock_total=pool.stock_total,
            pool=pool.pool,
            in_transit=pool.granted_away + sum(row["debited"] for row in rows),
            granted=sum(bucket.granted for bucket in buckets),
            reserved=sum(bucket.reserved for bucket in buckets),
            remaining=_sum_if_known([bucket.remaining for bucket in buckets]),
            unflushed=_sum_if_known([bucket.unflushed for bucket in buckets]),
            returning=sum(bucket.returning for bucket in buckets),
            paid=sum(bucket.paid for bucket in buckets),
            epoch=max((bucket.epoch for bucket in buckets), default=0),
            buckets=buckets,
        )

    async def gate_seen(self, sale: Sale) -> bool:
        """Wait a moment for every open bucket to have the gate of the sale row."""
        give_up_at = time.monotonic() + GATE_WAIT_SECONDS
        while not await self._all_have_gate(sale):
            if time.monotonic() >= give_up_at:
                return False
            await asyncio.sleep(_GATE_POLL_SECONDS)
        return True

    async def _all_have_gate(self, sale: Sale) -> bool:
        wanted = gate_of(sale)
        for row in await read_buckets(self._shards, sale):
            if row["state"] == BucketMode.CLOSED:
                continue
            keys = BucketKeys(self._deployment, sale.number, row["bucket"], row["epoch"])
            try:
                picture = await take_picture(self._redis, keys, Offset(0, 0))
            except DoorbusterError:
                return False
            if picture.state is None or picture.state.gate is not wanted:
                return False
        return True

    async def _bucket(self, sale: Sale, row: Any) -> BucketStock:  # noqa: ANN401  a row
        remaining = unflushed = None
        if row["state"] == BucketMode.CLOSED:
            remaining = unflushed = 0
        else:
            keys = BucketKeys(self._deployment, sale.number, row["bucket"], row["epoch"])
            try:
                picture = await take_picture(self._redis, keys, Offset(0, 0))
            except DoorbusterError:
                picture = None
            if picture is not None and picture.state is not None:
                remaining = picture.state.remaining
                unflushed = picture.state.orders_placed - row["orders_seen"]
        return BucketStock(
            bucket=row["bucket"],
            epoch=row["epoch"],
            state=row["state"],
            granted=row["granted"],
            reserved=row["reserved"],
            returning=row["returning"],
            paid=row["paid"],
            remaining=remaining,
            unflushed=unflushed,
            recover_reason=row["recover_reason"],
        )


def _sum_if_known(parts: list[int | None]) -> int | None:
    return None if None in parts else sum(part for part in parts if part is not None)
