"""How far many orders of one shard have come, in one statement."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from app.kernel.ids import OrderKey
from app.orders.order import ORDER_MACHINE, OrderState
from app.storage.shards import Shard

# The rules of a ticket without a row are those of `orders.store.read_ticket`.
SELECT_MARKS: Final = """
SELECT o.last_event, o.state::text AS state,
       t.id IS NOT NULL OR w.epoch < l.epoch OR (w.epoch = l.epoch AND w.seq < l.orders_seen)
           AS is_over
FROM unnest($1::int[], $2::smallint[], $3::smallint[], $4::bigint[])
     WITH ORDINALITY AS w (sale, bucket, epoch, seq, place)
LEFT JOIN orders o ON (o.sale, o.bucket, o.epoch, o.seq) = (w.sale, w.bucket, w.epoch, w.seq)
LEFT JOIN dead_letters t ON t.kind = 'order'
     AND (t.sale, t.bucket, t.epoch, t.seq) = (w.sale, w.bucket, w.epoch, w.seq)
LEFT JOIN bucket_leases l ON (l.sale, l.bucket) = (w.sale, w.bucket)
ORDER BY w.place"""

# The newest order of a bucket stands at the end of its primary key.
SELECT_LAST_PLACED: Final = """
SELECT max(newest.placed_at) FROM bucket_leases l
CROSS JOIN LATERAL (
    SELECT o.placed_at FROM orders o WHERE o.sale = l.sale AND o.bucket = l.bucket
    ORDER BY o.epoch DESC, o.seq DESC LIMIT 1) newest
WHERE l.sale = $1"""

_FINAL: Final = frozenset(ORDER_MACHINE.finals())


class Mark(NamedTuple):
    """
    How far an order has come.

    `number` is that of its newest event: 0 while it is queued; a ticket that was
    rejected has come to its one end, which counts as 1.
    """

    number: int
    is_final: bool


QUEUED: Final = Mark(0, is_final=False)
REJECTED: Final = Mark(1, is_final=True)


async def read_marks(shard: Shard, keys: Sequence[OrderKey]) -> list[Mark]:
    """
    Return the mark of each order, in the order of `keys`.

    Args:
        shard: that owns them all.
        keys: 1..n ids that we gave out.

    Raises:
        ShardUnavailable: nothing is known; look again later.
    """
    columns = [list(column) for column in zip(*keys, strict=True)]
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_MARKS, *columns)
    return [_mark(row["last_event"], row["state"], is_over=row["is_over"]) for row in rows]


async def read_last_placed(shard: Shard, sale: int) -> datetime | None:
    """Return when the newest order of a sale on this shard was placed; None if there is none."""
    async with shard.connection() as connection:
        placed_at: datetime | None = await connection.fetchval(SELECT_LAST_PLACED, sale)
    return placed_at


def _mark(number: int | None, state: str | None, *, is_over: bool) -> Mark:
    if number is None or state is None:
        return REJECTED if is_over else QUEUED
    return Mark(number, is_final=OrderState(state) in _FINAL)
