"""A bucket as rows alone, and stream entries made by hand: what the flush needs."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.kernel.ids import OrderKey
from app.orders.flush_report import FlushReport, Position
from app.orders.flush_store import flush_batch
from app.orders.stream import STREAM_START, EntryId, PlacementRequest, RawEntry, StreamEntry
from app.storage.shards import Shard

SALE: Final = 1
BUCKET: Final = 0
EPOCH: Final = 3
GRANTED: Final = 20
PRICE_MINOR: Final = 8_880

INSERT_LEASE: Final = """
INSERT INTO bucket_leases
    (sale, bucket, epoch, state, granted, home_shard, sale_id, kind, sku, merchant, price_minor,
     currency, limit_per_shopper, opens_at, closes_at, pay_within_seconds, epoch_opened_at,
     run_id, master_replid, incarnation, script_sha)
VALUES (1, 0, 3, 'open', 20, 1, 'spring', 'seckill', 'tea', 'acme', 8880, 'CNY', 2,
        now() - interval '1 hour', now() + interval '1 hour', 900, now(),
        repeat('a', 40), repeat('b', 40), '0123456789abcdef', repeat('c', 40))"""


@dataclass
class BucketRows:
    """One open bucket of 20 units on its shard, and the place to which it is flushed."""

    shard: Shard
    position: Position = field(default_factory=lambda: Position(SALE, BUCKET, EPOCH, STREAM_START))

    async def write(self) -> None:
        await self.execute(INSERT_LEASE)

    async def flush(self, *entries: StreamEntry | RawEntry) -> FlushReport:
        """Flush from where the last flush ended."""
        report = await flush_batch(self.shard, self.position, entries)
        self.position = report.position
        return report

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.shard.connection() as connection:
            await connection.execute(statement, *arguments)

    async def rows(self, statement: str, *arguments: object) -> list[Mapping[str, Any]]:
        async with self.shard.connection() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]

    async def drain(self) -> None:
        await self.execute("UPDATE bucket_leases SET state = 'draining'")

    async def lease(self, *columns: str) -> tuple[Any, ...]:
        (row,) = await self.rows("SELECT * FROM bucket_leases")
        return tuple(row[column] for column in columns)

    async def shoppers(self) -> list[str]:
        """Who has an order, in the order in which they were placed."""
        rows = await self.rows("SELECT shopper FROM orders ORDER BY epoch, seq")
        return [row["shopper"] for row in rows]

    async def letters(self) -> list[tuple[int, str, int]]:
        """Seq, reason and units of each dead letter."""
        rows = await self.rows("SELECT seq, reason, units FROM dead_letters ORDER BY id")
        return [tuple(row.values()) for row in rows]

    async def moves(self, *columns: str) -> list[tuple[Any, ...]]:
        rows = await self.rows("SELECT * FROM bucket_moves ORDER BY id")
        return [tuple(row[column] for column in columns) for row in rows]


def key_hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()[:16]


def wish(shopper: str, quantity: int = 1, key: str = "", **more: str) -> PlacementRequest:
    return PlacementRequest(key_hash(key or shopper), b"f" * 8, shopper, quantity, **more)


def entry(
    number: int,
    before: int,
    *orders: PlacementRequest | str,
    placed_at_ms: int | None = None,
) -> StreamEntry:
    """The `number`-th entry of the stream, after `before` orders; text stands for one unit."""
    wishes = tuple(wish(order) if isinstance(order, str) else order for order in orders)
    now_ms = time.time_ns() // 1_000_000
    return StreamEntry(EntryId(1_000 + number, 0), before, placed_at_ms or now_ms, wishes)


def junk(number: int, raw: bytes = b"junk") -> RawEntry:
    """An entry that nobody can read."""
    return RawEntry(EntryId(1_000 + number, 0), {b"b": raw})


def order_key(seq: int, epoch: int = EPOCH) -> OrderKey:
    return OrderKey(SALE, BUCKET, epoch, seq)
