"""
How much waits to be flushed, and for how long: the operators' view of the streams.

The age of the oldest order says more than the depth: a deep queue that moves is
a good sale, a shallow one that stands still is a dead worker. Age is told by
Redis's clock alone, so no two machines need to agree on the time.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from app.inventory.picture import Offset, take_picture
from app.inventory.queue_store import Row, read_queues
from app.kernel.errors import BrokenState, RedisUnavailable, ShardUnavailable
from app.storage.keys import BucketKeys
from app.storage.shards import Shards


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """
    One bucket's stream.

    Attributes:
        sale: its public id.
        state: of the lease row: open or draining.
        entries: in the stream, batches of orders; null while Redis does not tell.
        orders: placed and not flushed; null while Redis does not tell.
        oldest_age_ms: of the oldest unflushed order; 0 when none waits.
        offset: the last entry that is in Postgres.
        owner: who flushes it; null when nobody does.
    """

    sale: str
    bucket: int
    shard: int
    epoch: int
    state: str
    entries: int | None
    orders: int | None
    oldest_age_ms: int | None
    offset: str
    owner: str | None
    recover_reason: str | None


class QueueTotals(msgspec.Struct, frozen=True, kw_only=True):
    """All queues together; `dead_letters` counts those nobody has dropped, by kind."""

    entries: int
    orders: int
    oldest_age_ms: int
    without_owner: int
    dead_letters: dict[str, int]


class Queues(msgspec.Struct, frozen=True, kw_only=True):
    """
    Every queue, in the order of sales and buckets.

    Attributes:
        shards_away: shards that did not answer, whose queues are missing here.
        redis_answers: false when at least one bucket's server did not answer.
    """

    queues: list[Queue]
    totals: QueueTotals
    shards_away: list[int]
    redis_answers: bool


class _Depth(NamedTuple):
    entries: int | None
    orders: int | None
    oldest_age_ms: int | None


_UNKNOWN: Final = _Depth(None, None, None)


async def read_all_queues(shards: Shards, redis: Redis, deployment: str) -> Queues:
    """
    Look at every queue.

    A store that does not answer hides only what it alone knows: the other queues
    are what an operator needs to see just then.
    """
    found: list[Queue] = []
    letters: Counter[str] = Counter()
    away: list[int] = []
    for shard in shards.all:
        try:
            rows, parked = await read_queues(shard)
        except ShardUnavailable:
            away.append(shard.index)
            continue
        letters.update(parked)
        found += await look_at_queues(shard.index, rows, redis, deployment)
    found.sort(key=lambda queue: (queue.sale, queue.bucket))
    return Queues(
        queues=found,
        totals=_totals(found, letters),
        shards_away=away,
        redis_answers=all(queue.entries is not None for queue in found),
    )


async def look_at_queues(
    shard: int, rows: Iterable[Row], redis: Redis, deployment: str
) -> list[Queue]:
    """Look at the streams of one shard's buckets; ask no further once Redis is silent."""
    queues = []
    silent = False
    for row in rows:
        depth = _UNKNOWN
        if not silent:
            try:
                depth = await _depth(row, redis, deployment)
            except RedisUnavailable:
                silent = True
        queues.append(
            Queue(
                sale=row["sale_id"],
                bucket=row["bucket"],
                shard=shard,
                epoch=row["epoch"],
                state=row["state"],
                entries=depth.entries,
                orders=depth.orders,
                oldest_age_ms=depth.oldest_age_ms,
                offset=f"{row['stream_ms']}-{row['stream_seq']}",
                owner=row["owner"],
                recover_reason=row["recover_reason"],
            ),
        )
    return queues


async def _depth(row: Row, redis: Redis, deployment: str) -> _Depth:
    """Return what waits; orders are not known without a state."""
    keys = BucketKeys(deployment, row["sale"], row["bucket"], row["epoch"])
    try:
        picture = await take_picture(redis, keys, Offset(row["stream_ms"], row["stream_seq"]))
    except BrokenState:
        return _UNKNOWN
    state = picture.state
    orders = None if state is None else max(0, state.orders_placed - row["orders_seen"])
    return _Depth(picture.entries, orders, picture.oldest_age_ms)


def _totals(queues: Sequence[Queue], letters: Counter[str]) -> QueueTotals:
    return QueueTotals(
        entries=sum(queue.entries or 0 for queue in queues),
        orders=sum(queue.orders or 0 for queue in queues),
        oldest_age_ms=max((queue.oldest_age_ms or 0 for queue in queues), default=0),
        without_owner=sum(queue.owner is None for queue in queues),
        dead_letters=dict(sorted(letters.items())),
    )
