"""I9 at rest: who holds how many units, in Redis and in Postgres, in chunks."""

from typing import Any, Final

from redis.asyncio import Redis

from app.inventory.picture import Offset, take_picture
from app.kernel.equation import EXAMPLES_MAX, Doubt, Equation, Relation, none_of, unjudged
from app.orders import audit_store as store
from app.orders.audit_stock import subject_of
from app.orders.audit_store import Row
from app.storage.keys import BucketKeys
from app.storage.redis import redis_errors
from app.storage.shards import Shard

CHUNK_FIELDS: Final = 1_000  # of one HSCAN, and of one statement

_WHAT: Final = "shoppers whose units differ from Postgres"


async def audit_holders(shard: Shard, redis: Redis, keys: BucketKeys, row: Row) -> Equation:
    """
    Compare `shoppers` with the orders, field by field, while nothing moves.

    Args:
        shard: the bucket's.
        redis: the server that holds the bucket.
        keys: of its open epoch.
        row: its lease row, with nothing under way.

    Returns:
        Unjudged when something moved before the last field was compared.
    """
    subject = subject_of(row)
    started = await _counters(redis, keys)
    seen, differing = await _compare(shard, redis, keys)
    held = await store.count_holders(shard, keys.sale, keys.bucket)
    if await _counters(redis, keys) != started or not await _is_unchanged(shard, row):
        sides = (_WHAT, Relation.EQUAL, "0")
        note = "orders were placed while it was read"
        return unjudged("I9", subject, sides, Doubt.IN_MOTION, note)
    missing = held - seen
    if missing:
        differing.append(f"{missing} shoppers hold units in Postgres alone")
    return none_of("I9", subject, _WHAT, len(differing), differing[:EXAMPLES_MAX])


async def _compare(shard: Shard, redis: Redis, keys: BucketKeys) -> tuple[int, list[str]]:
    """Return how many shoppers of Redis hold units in Postgres, and where the two differ."""
    met: set[bytes] = set()  # HSCAN may show a field twice
    known, differing, cursor = 0, list[str](), -1
    while cursor != 0:
        cursor, fields = await _scan(redis, keys, max(cursor, 0))
        chunk = {name.decode(): int(units) for name, units in fields.items() if name not in met}
        met |= fields.keys()
        held = await store.units_held_by(shard, keys.sale, keys.bucket, list(chunk))
        known += len(held)
        differing += [
            f"shopper {shopper} holds {units} in Redis, {held.get(shopper, 0)} in Postgres"
            for shopper, units in chunk.items()
            if units != held.get(shopper, 0)
        ]
    return known, differing


async def _scan(redis: Redis, keys: BucketKeys, cursor: int) -> tuple[int, dict[bytes, bytes]]:
    name: Any = keys.shoppers
    with redis_errors(writes=False):
        scanned: Any = await redis.hscan(name, cursor, count=CHUNK_FIELDS)
    return scanned[0], scanned[1]


async def _counters(redis: Redis, keys: BucketKeys) -> tuple[int, int] | None:
    state = (await take_picture(redis, keys, Offset(0, 0))).state
    return (state.orders_placed, state.units_returned) if state else None


async def _is_unchanged(shard: Shard, row: Row) -> bool:
    rows = await store.read_standings(shard, [row["sale"]], live=True)
    return row in rows
