"""Where a sale's units are, as Postgres says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.sales.sale import Sale
from app.storage.shards import Shard, Shards

SELECT_POOL: Final = """
SELECT s.stock_total, s.pool,
       coalesce((SELECT sum(units) FROM grants g
                 WHERE g.sale = s.sale AND g.state = 'issued'), 0)::bigint AS granted_away
FROM sales s WHERE s.sale = $1"""
SELECT_BUCKETS: Final = """
SELECT l.bucket, l.epoch, l.state, l.granted, l.reserved, l.orders_seen, l.recover_reason,
       coalesce((SELECT sum(m.units) FROM bucket_moves m
                 WHERE m.sale = l.sale AND m.bucket = l.bucket AND m.state = 'debited'),
                0)::bigint AS debited,
       coalesce((SELECT sum(m.units) FROM bucket_moves m
                 WHERE m.sale = l.sale AND m.bucket = l.bucket AND m.state = 'asked'
                   AND m.kind = 'return'), 0)::bigint AS returning,
       coalesce((SELECT sum(o.units_held) FROM orders o
                 WHERE o.sale = l.sale AND o.bucket = l.bucket
                   AND o.state IN ('paid', 'shipped', 'completed')), 0)::bigint AS paid
FROM bucket_leases l WHERE l.sale = $1 ORDER BY l.bucket"""
SELECT_AVAILABLE: Final = """
SELECT coalesce(sum(granted - reserved), 0)::bigint FROM bucket_leases WHERE sale = $1"""


@dataclass(frozen=True, slots=True)
class PoolPicture:
    """A sale's units on its home shard."""

    stock_total: int
    pool: int
    granted_away: int  # grants issued and not yet applied


async def read_pool(shards: Shards, sale: Sale) -> PoolPicture:
    """Return what the sale row and its open grants say."""
    async with shards.home(sale.number).connection() as connection:
        row = await connection.fetchrow(SELECT_POOL, sale.number)
    assert row is not None, "a sale that was just read"
    return PoolPicture(*row)


async def read_buckets(shards: Shards, sale: Sale) -> list[Mapping[str, Any]]:
    """Return one row per bucket, in order of their numbers."""
    rows: list[Mapping[str, Any]] = []
    for shard in shards_of(shards, sale):
        async with shard.connection() as connection:
            rows += [dict(row) for row in await connection.fetch(SELECT_BUCKETS, sale.number)]
    return sorted(rows, key=lambda row: row["bucket"])


async def read_available(shards: Shards, sale: Sale) -> int:
    """Return the units that no order holds: in the pool and under the leases."""
    total = sale.pool
    for shard in shards_of(shards, sale):
        async with shard.connection() as connection:
            total += await connection.fetchval(SELECT_AVAILABLE, sale.number)
    return total


def shards_of(shards: Shards, sale: Sale) -> list[Shard]:
    """Return the shards that own buckets of a sale, each once."""
    indexes = {shards.of(sale.number, bucket).index for bucket in range(sale.buckets)}
    return [shards.all[index] for index in sorted(indexes)]
