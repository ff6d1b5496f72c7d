"""
Grants and credits: how units travel between a sale's pool and its buckets.

The pool is on the home shard and the lease on the bucket's shard, so every
journey is written at its start, done once by id at its end, and crossed off
last; any coordinator can carry on from the rows (docs/HOT_PATH.md §1, Moves).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.storage.shards import Shard

SELECT_TO_GRANT: Final = """
SELECT sale, pool, buckets FROM sales
WHERE pool > 0 AND state IN ('published', 'paused') AND leased_at IS NOT NULL
  AND closes_at > now()"""
# What could be spread anew: nothing of it is in the pool or on its way to a bucket.
SELECT_TO_LEVEL: Final = """
SELECT sale, buckets FROM sales s
WHERE pool = 0 AND state = 'published' AND leased_at IS NOT NULL AND buckets > 1
  AND opens_at <= now() AND closes_at > now()
  AND NOT EXISTS (SELECT FROM grants g WHERE g.sale = s.sale AND g.state = 'issued')"""
ISSUE_GRANT: Final = """
WITH taken AS (
    UPDATE sales SET pool = pool - $3
    WHERE sale = $1 AND pool >= $3 AND state IN ('published', 'paused')
    RETURNING sale
)
INSERT INTO grants (sale, bucket, units) SELECT sale, $2, $3 FROM taken"""
SELECT_ISSUED: Final = """
SELECT id, sale, bucket, units FROM grants WHERE state = 'issued' ORDER BY id LIMIT 1000"""
# Refused, and told so, when the bucket has closed meanwhile.
APPLY_GRANT: Final = """
WITH lease AS (
    SELECT sale, bucket, epoch, state FROM bucket_leases
    WHERE sale = $1 AND bucket = $2 FOR UPDATE
), applied AS (
    INSERT INTO applied_grants (sale, bucket, grant_id, units, refused)
    SELECT $1, $2, $3, $4, lease.state = 'closed' FROM lease
    ON CONFLICT DO NOTHING RETURNING refused
), raised AS (
    UPDATE bucket_leases l SET granted = l.granted + $4
    FROM applied WHERE l.sale = $1 AND l.bucket = $2 AND NOT applied.refused
), moved AS (
    INSERT INTO bucket_moves (sale, bucket, kind, units, epoch, state)
    SELECT lease.sale, lease.bucket, 'top_up', $4, lease.epoch, 'asked'
    FROM lease, applied WHERE NOT applied.refused
)
SELECT refused FROM applied"""
SELECT_APPLIED: Final = """
SELECT refused FROM applied_grants WHERE sale = $1 AND bucket = $2 AND grant_id = $3"""
SETTLE_GRANT: Final = """
UPDATE grants SET state = $2, settled_at = now() WHERE id = $1 AND state = 'issued'
RETURNING id"""
CREDIT_POOL: Final = """
WITH credited AS (
    INSERT INTO pool_credits (source, source_id, sale, bucket, units)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING units
)
UPDATE sales SET pool = pool + credited.units FROM credited WHERE sale = $3"""


class GrantState(StrEnum):
    """How far a grant has come."""

    ISSUED = "issued"
    APPLIED = "applied"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Poolful:
    """A pool with units to grant."""

    sale: int
    units: int
    buckets: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Units on their way from the pool to a bucket."""

    id: int
    sale: int
    bucket: int
    units: int


async def pools_to_grant(home: Shard) -> list[Poolful]:
    """Return the running sales at home here that have units in the pool."""
    async with home.connection() as connection:
        rows = await connection.fetch(SELECT_TO_GRANT)
    return [Poolful(row["sale"], row["pool"], row["buckets"]) for row in rows]


async def sales_to_level(home: Shard) -> list[Poolful]:
    """Return the selling sales at home here that have several buckets and an empty pool."""
    async with home.connection() as connection:
        rows = await connection.fetch(SELECT_TO_LEVEL)
    return [Poolful(row["sale"], 0, row["buckets"]) for row in rows]


async def issue_grant(home: Shard, sale: int, bucket: int, units: int) -> None:
    """Take units out of the pool and write the grant, if the pool still has them."""
    async with home.connection() as connection:
        await connection.execute(ISSUE_GRANT, sale, bucket, units)


async def issued_grants(home: Shard) -> list[Grant]:
    """Return the grants of sales at home here that are still on their way."""
    async with home.connection() as connection:
        rows = await connection.fetch(SELECT_ISSUED)
    return [Grant(row["id"], row["sale"], row["bucket"], row["units"]) for row in rows]


async def apply_grant(shard: Shard, grant: Grant) -> bool | None:
    """
    Raise the lease by a grant and write its top-up move, once.

    Returns:
        True if the bucket has (or had before) taken it, False if it is closed,
        None if the bucket has no lease row yet.
    """
    async with shard.transaction() as connection:
        refused = await connection.fetchval(
            APPLY_GRANT, grant.sale, grant.bucket, grant.id, grant.units
        )
        if refused is None:
            refused = await connection.fetchval(SELECT_APPLIED, grant.sale, grant.bucket, grant.id)
    return None if refused is None else not refused


async def settle_grant(home: Shard, grant: Grant, *, taken: bool) -> None:
    """Cross a grant off; one that was refused goes back to the pool, once."""
    async with home.transaction() as connection:
        state = GrantState.APPLIED if taken else GrantState.REFUSED
        settled = await connection.fetchval(SETTLE_GRANT, grant.id, state)
        if settled is not None and not taken:
            await connection.execute(
                CREDIT_POOL, "grant", grant.id, grant.sale, grant.bucket, grant.units
            )


async def credit_pool(home: Shard, sale: int, bucket: int, move_id: int, units: int) -> None:
    """Put the units of a debited move back into the pool, once by its id."""
    async with home.transaction() as connection:
        await connection.execute(CREDIT_POOL, "move", move_id, sale, bucket, units)
