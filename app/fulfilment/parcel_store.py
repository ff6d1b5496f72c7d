"""
Reviews, shipments, receipts and notes in Postgres, each beside its order.

Who writes holds the order's row, which was moved in the same transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.fulfilment.after_sale import Parcel
from app.fulfilment.review import ReviewState
from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.orders.order import ORDER_MACHINE, OrderEvent
from app.orders.store import NOTE_EVENTS, THIS_ORDER
from app.storage.shards import Connection, Shard

_KEY: Final = "sale, bucket, epoch, seq"

SELECT_REVIEW: Final = f"""
SELECT state, reason, decided_by, decided_at FROM order_reviews WHERE {THIS_ORDER}"""
PUT_REVIEW: Final = f"""
INSERT INTO order_reviews ({_KEY}, state, reason, decided_by) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT ON CONSTRAINT order_reviews_key DO UPDATE
SET state = $5, reason = $6, decided_by = $7, decided_at = now()"""

SELECT_SHIPMENT: Final = f"""
SELECT carrier, tracking_number, shipped_at, confirm_by, received_at FROM order_shipments
WHERE {THIS_ORDER}"""
INSERT_SHIPMENT: Final = f"""
INSERT INTO order_shipments ({_KEY}, carrier, tracking_number, confirm_by)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7::int * interval '1 second')"""
MARK_RECEIVED: Final = f"""
UPDATE order_shipments SET received_at = now() WHERE {THIS_ORDER} AND received_at IS NULL"""

# An open case stops the clock: what is to be sent back has not been received for good.
CONFIRM_OVERDUE: Final = f"""
WITH due AS (
    SELECT o.sale, o.bucket, o.epoch, o.seq
    FROM order_shipments s JOIN orders o USING ({_KEY})
    WHERE s.received_at IS NULL AND s.confirm_by < now() AND o.state = ANY($2::order_state[])
      AND NOT EXISTS (
        SELECT FROM after_sales a
        WHERE (a.sale, a.bucket, a.epoch, a.seq) = (o.sale, o.bucket, o.epoch, o.seq)
          AND a.state IN ('requested', 'approved', 'goods_sent', 'resent'))
    ORDER BY s.confirm_by LIMIT $1 FOR UPDATE OF o SKIP LOCKED
), moved AS (
    UPDATE orders o SET last_event = o.last_event + 1, state = 'completed'
    FROM due WHERE (o.sale, o.bucket, o.epoch, o.seq) = (due.sale, due.bucket, due.epoch, due.seq)
    RETURNING o.sale, o.bucket, o.epoch, o.seq, o.state, o.last_event
), received AS (
    UPDATE order_shipments s SET received_at = now() FROM moved m
    WHERE (s.sale, s.bucket, s.epoch, s.seq) = (m.sale, m.bucket, m.epoch, m.seq)
)
{NOTE_EVENTS.format(event="$3", actor="'clock'", detail="'{}'::jsonb")}
RETURNING number"""

INSERT_NOTE: Final = f"""
INSERT INTO order_notes ({_KEY}, text, written_by, idempotency_key)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT ON CONSTRAINT order_notes_one_per_key DO NOTHING RETURNING id"""
SELECT_NOTE: Final = f"""
SELECT text, written_by, written_at FROM order_notes
WHERE {THIS_ORDER} AND idempotency_key = $5"""
SELECT_NOTES: Final = f"""
SELECT text, written_by, written_at FROM order_notes WHERE {THIS_ORDER} ORDER BY id LIMIT 1000"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A row of order_reviews."""

    state: ReviewState
    reason: str | None
    decided_by: str
    decided_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """A row of order_shipments; `confirm_by` is when the clock confirms the receipt."""

    parcel: Parcel
    shipped_at: datetime
    confirm_by: datetime
    received_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What an operator wrote about an order."""

    text: str
    written_by: str
    written_at: datetime


async def read_review(connection: Connection, key: OrderKey) -> Review | None:
    """Return what was decided; None if nobody has looked yet."""
    row = await connection.fetchrow(SELECT_REVIEW, *key)
    if row is None:
        return None
    return Review(**{**dict(row), "state": ReviewState(row["state"])})


async def put_review(
    connection: Connection, key: OrderKey, state: ReviewState, reason: str | None, actor: str
) -> None:
    """Write a decision that the table of reviews allows."""
    await connection.execute(PUT_REVIEW, *key, state, reason, actor)


async def read_shipment(connection: Connection, key: OrderKey) -> Shipment | None:
    """Return how an order travels; None if it was not shipped."""
    row = await connection.fetchrow(SELECT_SHIPMENT, *key)
    if row is None:
        return None
    return Shipment(
        parcel=Parcel(carrier=row["carrier"], tracking_number=row["tracking_number"]),
        shipped_at=row["shipped_at"],
        confirm_by=row["confirm_by"],
        received_at=row["received_at"],
    )


async def insert_shipment(
    connection: Connection, key: OrderKey, parcel: Parcel, confirm_after_seconds: int
) -> None:
    """Write how an order travels, and when the clock confirms its receipt."""
    await connection.execute(
        INSERT_SHIPMENT, *key, parcel.carrier, parcel.tracking_number, confirm_after_seconds
    )


async def mark_received(connection: Connection, key: OrderKey) -> None:
    """Write that the goods are there."""
    await connection.execute(MARK_RECEIVED, *key)


async def confirm_overdue(shard: Shard, orders_max: int) -> int:
    """Complete orders whose shopper has said nothing for as long as the policy gave."""
    event = OrderEvent.RECEIVED
    async with shard.transaction() as connection:
        rows = await connection.fetch(
            CONFIRM_OVERDUE, orders_max, ORDER_MACHINE.sources(event), event
        )
        if rows:
            failpoint("receipt.before_commit")
    if rows:
        failpoint("receipt.after_commit")
    return len(rows)


async def write_note(
    shard: Shard, key: OrderKey, text: str, actor: str, idempotency_key: str
) -> tuple[Note, bool]:
    """Write a note, once per key; return the note of that key, and whether it is new."""
    async with shard.transaction() as connection:
        new = await connection.fetchval(INSERT_NOTE, *key, text, actor, idempotency_key)
        row = await connection.fetchrow(SELECT_NOTE, *key, idempotency_key)
    assert row is not None, key
    return _note(row), new is not None


async def read_notes(connection: Connection, key: OrderKey) -> Sequence[Note]:
    """Return an order's notes, the first one first."""
    return [_note(row) for row in await connection.fetch(SELECT_NOTES, *key)]


def _note(row: Mapping[str, Any]) -> Note:
    return Note(text=row["text"], written_by=row["written_by"], written_at=row["written_at"])
