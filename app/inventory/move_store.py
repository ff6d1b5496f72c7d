"""
Moves in Postgres: changes of a bucket from outside the hot path.

A move is written in the transaction that changed the lease row and carries the
lease's epoch of that moment. It is done when the script says so, and superseded
only when the lease row shows a later epoch, whose rebuild has counted it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from app.storage.shards import Shard


class MoveKind(StrEnum):
    """What a move changes."""

    RETURN = "return"
    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"
    SEAT = "seat"


class MoveState(StrEnum):
    """How far a move has come."""

    ASKED = "asked"
    DEBITED = "debited"
    CREDITED = "credited"
    DONE = "done"
    SUPERSEDED = "superseded"


SUPERSEDE: Final = """
UPDATE bucket_moves m SET state = 'superseded', settled_at = now()
FROM bucket_leases l
WHERE m.state = 'asked' AND l.sale = m.sale AND l.bucket = m.bucket AND l.epoch > m.epoch"""
SELECT_ASKED: Final = """
SELECT m.id, m.sale, m.bucket, m.kind, m.units, m.shopper, m.order_epoch, m.order_seq, m.key_hash,
       m.owner_epoch, m.owner_seq, o.placed_at AS owner_placed_at,
       o.fingerprint AS owner_fingerprint, m.epoch, l.incarnation,
       coalesce(m.group_id, mine.group_id) AS group_id, m.seats, m.group_expires_at, m.members,
       m.members_group
FROM bucket_moves m
JOIN bucket_leases l USING (sale, bucket)
LEFT JOIN orders o ON o.sale = m.sale AND o.bucket = m.bucket AND o.epoch = m.owner_epoch
                  AND o.seq = m.owner_seq
LEFT JOIN orders mine ON m.kind = 'return' AND mine.sale = m.sale AND mine.bucket = m.bucket
                     AND mine.epoch = m.order_epoch AND mine.seq = m.order_seq
WHERE m.state = 'asked' AND l.state = 'open' AND l.epoch = m.epoch
ORDER BY m.id LIMIT $1"""
MARK_DONE: Final = """
UPDATE bucket_moves SET state = 'done', settled_at = now()
WHERE id = ANY($1::bigint[]) AND state = 'asked'"""
MARK_SEATS_DONE: Final = """
UPDATE bucket_moves SET state = 'done', settled_at = now(), orders_placed = $2
WHERE id = $1 AND state = 'asked'"""
# The lease row is locked and its epoch compared: a withdrawal whose units the
# rebuild of a later epoch has handed out again takes nothing.
DEBIT: Final = """
WITH lease AS (
    SELECT l.sale, l.bucket FROM bucket_leases l JOIN bucket_moves m USING (sale, bucket)
    WHERE m.id = $1 AND m.state = 'asked' AND l.epoch = m.epoch AND l.state = 'open'
    FOR UPDATE OF l, m
), lowered AS (
    UPDATE bucket_leases l SET granted = l.granted - $2
    FROM lease WHERE l.sale = lease.sale AND l.bucket = lease.bucket RETURNING l.sale
)
UPDATE bucket_moves m
SET units = $2, state = CASE WHEN $2 > 0 THEN 'debited' ELSE 'done' END::move_state,
    settled_at = CASE WHEN $2 > 0 THEN NULL ELSE now() END
FROM lowered WHERE m.id = $1 AND m.state = 'asked'"""
SELECT_DEBITED: Final = """
SELECT id, sale, bucket, units FROM bucket_moves WHERE state = 'debited' ORDER BY id LIMIT $1"""
MARK_CREDITED: Final = """
UPDATE bucket_moves SET state = 'credited', settled_at = now()
WHERE id = ANY($1::bigint[]) AND state = 'debited'"""
ASK_WITHDRAWAL: Final = """
INSERT INTO bucket_moves (sale, bucket, kind, units, epoch, state)
SELECT sale, bucket, 'withdrawal', $3, epoch, 'asked' FROM bucket_leases
WHERE sale = $1 AND bucket = $2 AND epoch = $4 AND state = 'open'
  AND NOT EXISTS (SELECT 1 FROM bucket_moves m
                  WHERE m.sale = $1 AND m.bucket = $2 AND m.kind = 'withdrawal'
                    AND m.state IN ('asked', 'debited'))"""

STOP_BUCKET: Final = """
UPDATE bucket_leases SET recover_reason = 'broken_move'
WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND state = 'open' AND recover_reason IS NULL"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move that waits to be applied to the open epoch's keys."""

    id: int
    sale: int
    bucket: int
    kind: MoveKind
    units: int
    shopper: str | None
    order_epoch: int | None
    order_seq: int | None
    key_hash: bytes | None
    owner_epoch: int | None
    owner_seq: int | None
    owner_placed_at: datetime | None
    owner_fingerprint: bytes | None
    epoch: int
    incarnation: str
    group_id: str | None  # of a group order's return, and of a seat move
    seats: int | None
    group_expires_at: datetime | None
    members: Sequence[str] | None
    members_group: str | None


@dataclass(frozen=True, slots=True)
class DebitedMove:
    """Units that have left a lease and belong into the pool."""

    id: int
    sale: int
    bucket: int
    units: int


async def supersede_moves(shard: Shard) -> None:
    """Cross off the moves that the rebuild of a later epoch has counted."""
    async with shard.connection() as connection:
        await connection.execute(SUPERSEDE)


async def asked_moves(shard: Shard, moves_max: int) -> list[Move]:
    """Return moves of open buckets, oldest first."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_ASKED, moves_max)
    return [_move(row) for row in rows]


async def mark_done(shard: Shard, ids: Sequence[int]) -> None:
    """Cross off moves that the scripts have applied."""
    async with shard.connection() as connection:
        await connection.execute(MARK_DONE, list(ids))


async def mark_seats_done(shard: Shard, move_id: int, orders_placed: int) -> None:
    """Cross off a seat move; what was placed until then may have joined its group."""
    async with shard.connection() as connection:
        await connection.execute(MARK_SEATS_DONE, move_id, orders_placed)


async def debit_withdrawal(shard: Shard, move_id: int, units_taken: int) -> None:
    """Lower the lease by what a withdrawal took out of Redis, in the same epoch only."""
    async with shard.transaction() as connection:
        await connection.execute(DEBIT, move_id, units_taken)


async def debited_moves(shard: Shard, moves_max: int) -> list[DebitedMove]:
    """Return moves whose units are on their way to the pool."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_DEBITED, moves_max)
    return [DebitedMove(*row) for row in rows]


async def mark_credited(shard: Shard, ids: Sequence[int]) -> None:
    """Cross off moves whose units are in the pool."""
    async with shard.connection() as connection:
        await connection.execute(MARK_CREDITED, list(ids))


async def stop_bucket(shard: Shard, move: Move) -> None:
    """Leave word for the coordinator: this epoch's keys contradict a move of it."""
    async with shard.connection() as connection:
        await connection.execute(STOP_BUCKET, move.sale, move.bucket, move.epoch)


async def ask_withdrawal(shard: Shard, sale: int, bucket: int, epoch: int, units: int) -> None:
    """Wish units out of an open bucket, unless one such wish is still under way."""
    async with shard.connection() as connection:
        await connection.execute(ASK_WITHDRAWAL, sale, bucket, units, epoch)


def _move(row: Mapping[str, Any]) -> Move:
    values = dict(row)
    return Move(kind=MoveKind(values.pop("kind")), **values)
