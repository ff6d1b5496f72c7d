"""
Orders in Postgres: one function per business act, each a guarded statement.

Every act runs on the order's own shard, in the caller's transaction where a
connection is taken. Locks are taken in the order: order row, then lease row.
"""

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.orders.order import (
    ORDER_MACHINE,
    Order,
    OrderEvent,
    OrderReason,
    OrderState,
    Ticket,
    TicketState,
)
from app.storage.shards import Connection, Shard

_COLUMNS: Final = """sale, bucket, epoch, seq, shopper, sku, quantity, price_minor, total_minor,
    refunded_minor, currency, merchant, state, reason, placed_at, pay_by, paid_at, closed_at,
    key_hash, fingerprint, reference, group_id"""
THIS_ORDER: Final = "sale = $1 AND bucket = $2 AND epoch = $3 AND seq = $4"

SELECT_ORDER: Final = f"SELECT {_COLUMNS} FROM orders WHERE {THIS_ORDER}"
SELECT_ORDER_FOR_SHARE: Final = f"{SELECT_ORDER} FOR SHARE"
SELECT_ORDER_FOR_UPDATE: Final = f"{SELECT_ORDER} FOR UPDATE"
SELECT_ORDERS: Final = f"""
SELECT {_COLUMNS} FROM orders
JOIN unnest($1::int[], $2::smallint[], $3::smallint[], $4::bigint[])
  AS wanted (sale, bucket, epoch, seq) USING (sale, bucket, epoch, seq)"""

# Row, dead letter and lease in one statement, so that no answer is pieced
# together from two moments.
SELECT_TICKET: Final = f"""
SELECT l.epoch AS lease_epoch, l.state AS lease_state, l.orders_seen,
       d.reason AS letter_reason, o.*
FROM bucket_leases l
LEFT JOIN dead_letters d ON d.kind = 'order' AND d.sale = $1 AND d.bucket = $2
                        AND d.epoch = $3 AND d.seq = $4
LEFT JOIN LATERAL (SELECT {_COLUMNS} FROM orders WHERE {THIS_ORDER}) o ON true
WHERE l.sale = $1 AND l.bucket = $2"""

SELECT_ORDERS_OF_SHOPPER: Final = f"""
SELECT {_COLUMNS} FROM orders
WHERE shopper = $1
  AND ($2::timestamptz IS NULL
       OR (placed_at, sale, bucket, epoch, seq)
          < ($2, $3::int, $4::smallint, $5::smallint, $6::bigint))
  AND ($7::order_state IS NULL OR state = $7)
ORDER BY placed_at DESC, sale DESC, bucket DESC, epoch DESC, seq DESC
LIMIT $8"""

SELECT_ORDERS_OF_ALL: Final = f"""
SELECT {_COLUMNS} FROM orders
WHERE ($1::int IS NULL OR sale = $1)
  AND ($2::timestamptz IS NULL
       OR (placed_at, sale, bucket, epoch, seq)
          < ($2, $3::int, $4::smallint, $5::smallint, $6::bigint))
  AND ($7::order_state IS NULL OR state = $7)
ORDER BY placed_at DESC, sale DESC, bucket DESC, epoch DESC, seq DESC
LIMIT $8"""

SELECT_EVENTS: Final = f"""
SELECT number, event, state, actor, detail, recorded_at FROM order_events
WHERE {THIS_ORDER} ORDER BY number"""

SELECT_REPLAYS: Final = f"""
SELECT {_COLUMNS} FROM orders
JOIN unnest($1::text[], $2::bytea[]) AS wanted (shopper, key_hash) USING (shopper, key_hash)
WHERE sale = $3"""

# The UPDATE counts the event on the order's row itself: a number read from the
# history could be older than the row lock.
NOTE_EVENTS: Final = """
INSERT INTO order_events (sale, bucket, epoch, seq, number, event, state, actor, detail)
SELECT sale, bucket, epoch, seq, last_event, {event}, state, {actor}, {detail} FROM moved"""

MARK_ORDER_PAID: Final = f"""
WITH moved AS (
    UPDATE orders SET last_event = last_event + 1, state = 'paid', reason = NULL, paid_at = $5
    WHERE {THIS_ORDER} AND state = ANY($6::order_state[])
    RETURNING sale, bucket, epoch, seq, state, last_event
)
{NOTE_EVENTS.format(event="$7", actor="$8", detail="$9::jsonb")}
RETURNING number"""

ASK_TO_CLOSE: Final = f"""
WITH moved AS (
    UPDATE orders SET last_event = last_event + 1, state = 'closing', reason = $5
    WHERE {THIS_ORDER} AND state = ANY($6::order_state[])
    RETURNING sale, bucket, epoch, seq, state, last_event
)
{NOTE_EVENTS.format(event="$7", actor="$8", detail="'{}'::jsonb")}
RETURNING number"""

CLAIM_EXPIRED: Final = f"""
WITH moved AS (
    UPDATE orders o SET last_event = o.last_event + 1, state = 'closing', reason = 'expired'
    FROM (SELECT sale, bucket, epoch, seq FROM orders
          WHERE state = 'pending' AND pay_by < now()
          ORDER BY pay_by LIMIT $1 FOR UPDATE SKIP LOCKED) due
    WHERE (o.sale, o.bucket, o.epoch, o.seq) = (due.sale, due.bucket, due.epoch, due.seq)
    RETURNING o.sale, o.bucket, o.epoch, o.seq, o.state, o.last_event
)
{NOTE_EVENTS.format(event="$2", actor="'closer'", detail="'{}'::jsonb")}
RETURNING number"""

SELECT_CLOSING: Final = """
SELECT sale, bucket, epoch, seq FROM orders
WHERE state = 'closing'
  AND (sale, bucket, epoch, seq) > ($1::int, $2::smallint, $3::smallint, $4::bigint)
ORDER BY sale, bucket, epoch, seq LIMIT $5"""

# One bucket at a time: the orders first, then the lease row (docs/HOT_PATH.md §7 for
# a bucket that is closed already: the units go back to the pool, not to Redis). The groups
# ask for the lease's answer so that their rows are locked after it, as the flush does.
CLOSE_ORDERS: Final = f"""
WITH moved AS (
    UPDATE orders o
    SET last_event = o.last_event + 1, state = 'closed', closed_at = now(), units_held = 0
    FROM unnest($3::smallint[], $4::bigint[]) AS due (epoch, seq)
    WHERE o.sale = $1 AND o.bucket = $2 AND o.epoch = due.epoch AND o.seq = due.seq
      AND o.state = ANY($5::order_state[]) AND o.units_held > 0
    RETURNING o.sale, o.bucket, o.epoch, o.seq, o.state, o.last_event, o.shopper,
              o.quantity, o.group_id
), lease AS (
    UPDATE bucket_leases l
    SET reserved = l.reserved - given.units,
        granted = CASE WHEN l.state = 'closed' THEN l.granted - given.units ELSE l.granted END,
        units_released = l.units_released + given.units
    FROM (SELECT sum(quantity) AS units FROM moved) given
    WHERE l.sale = $1 AND l.bucket = $2 AND given.units > 0
    RETURNING l.epoch, l.state
), returned AS (
    INSERT INTO bucket_moves
        (sale, bucket, kind, units, shopper, order_epoch, order_seq, epoch, state)
    SELECT m.sale, m.bucket, 'return', m.quantity, m.shopper, m.epoch, m.seq, lease.epoch,
           CASE WHEN lease.state = 'closed' THEN 'debited' ELSE 'asked' END::move_state
    FROM moved m CROSS JOIN lease
), left_group AS (
    UPDATE groups g SET leader_left = true FROM moved m CROSS JOIN lease
    WHERE g.sale = m.sale AND g.bucket = m.bucket AND g.id = m.group_id AND g.state = 'open'
      AND (g.leader_epoch, g.leader_seq) = (m.epoch, m.seq)
)
{NOTE_EVENTS.format(event="$6", actor="'closer'", detail="'{}'::jsonb")}
RETURNING seq"""

INSERT_OUTBOX: Final = """
INSERT INTO outbox (kind, business_id, payload) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"""


class MarkPaid(enum.Enum):
    """What a capture met."""

    PAID = enum.auto()
    ALREADY_PAID = enum.auto()
    CLOSED = enum.auto()
    MISSING = enum.auto()


class CloseAsked(enum.Enum):
    """What a wish to close met."""

    CLOSING = enum.auto()
    ALREADY_ENDING = enum.auto()
    REFUSED = enum.auto()
    MISSING = enum.auto()


async def read_ticket(shard: Shard, key: OrderKey) -> Order | Ticket | None:
    """
    Say what is known of an id that the placing script gave out.

    Returns:
        The order; or a ticket that is queued or finally rejected; or None for an
        id that cannot have been given out.

    Raises:
        ShardUnavailable: the shard did not answer.
        AssertionError: passed by the flush, and neither a row nor a letter: a
            bug of ours or a damaged database, never an answer to a shopper.
    """
    async with shard.connection() as connection:
        row = await connection.fetchrow(SELECT_TICKET, *key)
    if row is None or key.epoch > row["lease_epoch"]:
        return None
    if row["sale"] is not None:
        return order_from_row(row)
    if row["letter_reason"] is not None:
        return Ticket(key, TicketState.REJECTED, row["letter_reason"])
    if key.epoch < row["lease_epoch"]:
        return Ticket(key, TicketState.REJECTED, "lost_in_recovery")
    if key.seq >= row["orders_seen"]:
        return Ticket(key, TicketState.QUEUED)
    # Only while a bucket drains may the flush pass over a gap or an unreadable entry.
    assert row["lease_state"] == "draining", f"passed by the flush without a trace: {key}"
    return Ticket(key, TicketState.REJECTED, "lost_in_recovery")


async def read_orders(shard: Shard, keys: Sequence[OrderKey]) -> dict[OrderKey, Order]:
    """Return the rows that exist of these keys, all on one shard, in one statement."""
    columns = [list(column) for column in zip(*keys, strict=True)]
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_ORDERS, *columns)
    return {order.key: order for order in map(order_from_row, rows)}


async def lock_order_for_payment(connection: Connection, key: OrderKey) -> Order | None:
    """Read an order FOR SHARE: it cannot leave its state before the caller commits."""
    row = await connection.fetchrow(SELECT_ORDER_FOR_SHARE, *key)
    return None if row is None else order_from_row(row)


async def lock_order(connection: Connection, key: OrderKey) -> Order | None:
    """Read an order FOR UPDATE."""
    row = await connection.fetchrow(SELECT_ORDER_FOR_UPDATE, *key)
    return None if row is None else order_from_row(row)


async def mark_paid(
    connection: Connection,
    key: OrderKey,
    paid_at: datetime,
    *,
    actor: str,
    detail: Mapping[str, object],
) -> MarkPaid:
    """
    Move a pending or closing order to paid, in the caller's transaction.

    Returns:
        PAID if this call did it; otherwise what stood in the way, nothing changed.
    """
    event = OrderEvent.PAYMENT_CAPTURED
    number = await connection.fetchval(
        MARK_ORDER_PAID,
        *key,
        paid_at,
        ORDER_MACHINE.sources(event),
        event,
        actor,
        dict(detail),
    )
    if number is not None:
        return MarkPaid.PAID
    order = await lock_order(connection, key)
    if order is None:
        return MarkPaid.MISSING
    return MarkPaid.CLOSED if order.state == OrderState.CLOSED else MarkPaid.ALREADY_PAID


async def ask_to_close(
    connection: Connection,
    key: OrderKey,
    reason: OrderReason,
    *,
    actor: str,
) -> CloseAsked:
    """
    Move a pending order to closing: from now on no payment may start.

    Returns:
        ALREADY_ENDING if it is closing or closed; REFUSED if it is paid or beyond.
    """
    event = OrderEvent.CLOSE_ASKED
    number = await connection.fetchval(
        ASK_TO_CLOSE,
        *key,
        reason,
        ORDER_MACHINE.sources(event),
        event,
        actor,
    )
    if number is not None:
        return CloseAsked.CLOSING
    order = await lock_order(connection, key)
    if order is None:
        return CloseAsked.MISSING
    ending = order.state in {OrderState.CLOSING, OrderState.CLOSED}
    return CloseAsked.ALREADY_ENDING if ending else CloseAsked.REFUSED


async def claim_expired(shard: Shard, orders_max: int) -> int:
    """Move up to `orders_max` pending orders past their deadline to closing."""
    async with shard.transaction() as connection:
        rows = await connection.fetch(CLAIM_EXPIRED, orders_max, OrderEvent.CLOSE_ASKED)
    return len(rows)


async def closing_orders(shard: Shard, after: OrderKey, orders_max: int) -> list[OrderKey]:
    """Return orders that wait for their end, in key order, past `after`."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_CLOSING, *after, orders_max)
    return [OrderKey(*row) for row in rows]


async def close_orders(shard: Shard, sale: int, bucket: int, keys: Sequence[OrderKey]) -> int:
    """
    End closing orders of one bucket and let go of their units, each once.

    In one transaction: the state, `units_held` to 0, the lease's `reserved`, a
    return move stamped with the lease's epoch, the event.

    Returns:
        How many this call closed; the others were not closing any more.
    """
    event = OrderEvent.PROVIDER_CLOSED
    due = sorted(keys)
    async with shard.transaction() as connection:
        rows = await connection.fetch(
            CLOSE_ORDERS,
            sale,
            bucket,
            [key.epoch for key in due],
            [key.seq for key in due],
            ORDER_MACHINE.sources(event),
            event,
        )
        failpoint("closer.before_commit")
    return len(rows)


async def orders_of_shopper(
    shard: Shard,
    shopper: str,
    before: tuple[datetime, OrderKey] | None,
    state: OrderState | None,
    orders_max: int,
) -> list[Order]:
    """Return one shopper's orders on one shard, newest first, older than `before`."""
    return await _list_orders(shard, SELECT_ORDERS_OF_SHOPPER, (shopper, before, state, orders_max))


async def orders_of_sale(
    shard: Shard,
    sale: int | None,
    before: tuple[datetime, OrderKey] | None,
    state: OrderState | None,
    orders_max: int,
) -> list[Order]:
    """Return the orders of one sale (or of all) on one shard, newest first."""
    return await _list_orders(shard, SELECT_ORDERS_OF_ALL, (sale, before, state, orders_max))


async def _list_orders(
    shard: Shard,
    statement: str,
    wish: tuple[object, tuple[datetime, OrderKey] | None, OrderState | None, int],
) -> list[Order]:
    subject, before, state, orders_max = wish
    placed_at, key = before or (None, (None, None, None, None))
    async with shard.connection() as connection:
        rows = await connection.fetch(statement, subject, placed_at, *key, state, orders_max)
    return [order_from_row(row) for row in rows]


async def order_timeline(shard: Shard, key: OrderKey) -> list[dict[str, Any]]:
    """Return every event of one order, oldest first."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_EVENTS, *key)
    return [dict(row) for row in rows]


async def find_replays(
    shard: Shard,
    sale: int,
    wanted: Sequence[tuple[str, bytes]],
) -> dict[tuple[str, bytes], Order]:
    """Look up orders by (shopper, key hash): the replays of a bucket that is closed."""
    shoppers = [shopper for shopper, _ in wanted]
    hashes = [key_hash for _, key_hash in wanted]
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_REPLAYS, shoppers, hashes, sale)
    orders = map(order_from_row, rows)
    return {(order.shopper, order.key_hash): order for order in orders}


async def insert_outbox(
    connection: Connection,
    kind: str,
    business_id: str,
    payload: Mapping[str, object],
) -> None:
    """Leave a fact for a later stage, once, in the caller's transaction."""
    await connection.execute(INSERT_OUTBOX, kind, business_id, dict(payload))


def order_from_row(row: Mapping[str, Any]) -> Order:
    """Turn a row of `orders` into an order."""
    return Order(
        key=OrderKey(row["sale"], row["bucket"], row["epoch"], row["seq"]),
        shopper=row["shopper"],
        sku=row["sku"],
        quantity=row["quantity"],
        price_minor=row["price_minor"],
        total_minor=row["total_minor"],
        refunded_minor=row["refunded_minor"],
        currency=row["currency"],
        merchant=row["merchant"],
        state=OrderState(row["state"]),
        reason=None if row["reason"] is None else OrderReason(row["reason"]),
        placed_at=row["placed_at"],
        pay_by=row["pay_by"],
        paid_at=row["paid_at"],
        closed_at=row["closed_at"],
        key_hash=row["key_hash"],
        fingerprint=row["fingerprint"],
        reference=row["reference"],
        group_id=row["group_id"],
    )
