"""
The life of an order after its payment, in Postgres: shipped, received, refunded, told.

Every act is one guarded UPDATE on the order's own shard, in the caller's
transaction; the states it may leave come from the order's table. Locks are taken
in the order: order row, then whatever hangs on it, then lease row.
"""

from collections.abc import Mapping
from typing import Final

from app.kernel.ids import OrderKey
from app.orders.order import ORDER_MACHINE, OrderEvent, OrderReason
from app.orders.store import NOTE_EVENTS, THIS_ORDER
from app.storage.shards import Connection

# What shoppers and operators may repeat at will ends here, so that what must happen to an
# order (a payment, a refund) never runs out of numbers: a smallint holds 32 767.
_REPEATABLE: Final = frozenset({OrderEvent.DELIVERY_CHANGED, OrderEvent.REVIEWED})
_REPEATED_UNTIL: Final = 500
_NUMBERED_UNTIL: Final = 32_767

# Only what the table allows moves; `$5` is the state that the event leads to, NULL for
# an event that leaves the order where it is.
MOVE_ORDER: Final = f"""
WITH moved AS (
    UPDATE orders
    SET last_event = last_event + 1, state = coalesce($5::order_state, state)
    WHERE {THIS_ORDER} AND state = ANY($6::order_state[]) AND last_event < $10
    RETURNING sale, bucket, epoch, seq, state, last_event
)
{NOTE_EVENTS.format(event="$7", actor="$8", detail="$9::jsonb")}
RETURNING number"""

# As when an unpaid order closes: the units go back by a move with the lease's epoch, or
# to the pool when the bucket is closed (docs/HOT_PATH.md §7). A group that is open counts
# one paid seat less, and is locked after the lease row, as the flush does; one that has
# formed stays formed.
MARK_REFUNDED: Final = f"""
WITH moved AS (
    UPDATE orders o
    SET last_event = o.last_event + 1, state = 'refunded', reason = $5, units_held = 0
    WHERE {THIS_ORDER} AND o.state = ANY($6::order_state[]) AND o.units_held > 0
      AND o.refunded_minor = o.total_minor
    RETURNING o.sale, o.bucket, o.epoch, o.seq, o.state, o.last_event, o.shopper, o.quantity,
              o.group_id
), lease AS (
    UPDATE bucket_leases l
    SET reserved = l.reserved - moved.quantity,
        granted = CASE WHEN l.state = 'closed' THEN l.granted - moved.quantity
                       ELSE l.granted END,
        units_released = l.units_released + moved.quantity
    FROM moved
    WHERE l.sale = moved.sale AND l.bucket = moved.bucket
    RETURNING l.epoch, l.state
), returned AS (
    INSERT INTO bucket_moves
        (sale, bucket, kind, units, shopper, order_epoch, order_seq, epoch, state)
    SELECT m.sale, m.bucket, 'return', m.quantity, m.shopper, m.epoch, m.seq, lease.epoch,
           CASE WHEN lease.state = 'closed' THEN 'debited' ELSE 'asked' END::move_state
    FROM moved m CROSS JOIN lease
), left_group AS (
    UPDATE groups g
    SET seats_paid = g.seats_paid - 1,
        leader_left = g.leader_left OR (g.leader_epoch, g.leader_seq) = (m.epoch, m.seq)
    FROM moved m CROSS JOIN lease
    WHERE g.sale = m.sale AND g.bucket = m.bucket AND g.id = m.group_id AND g.state = 'open'
)
{NOTE_EVENTS.format(event="$7", actor="$8", detail="$9::jsonb")}
RETURNING number"""

ADD_REFUNDED: Final = f"""
UPDATE orders SET refunded_minor = refunded_minor + $5
WHERE {THIS_ORDER} AND refunded_minor + $5 <= total_minor
RETURNING refunded_minor = total_minor"""


async def move_order(
    connection: Connection,
    key: OrderKey,
    event: OrderEvent,
    *,
    actor: str,
    detail: Mapping[str, object],
) -> bool:
    """
    Let one event happen to an order, if its table allows it now.

    Not for closing, paying or refunding, which move units or money as well.

    Args:
        connection: in a transaction.
        key: of the order.
        event: one of those that leave the order where it is, or lead to one state.
        actor: who did it.
        detail: what the timeline tells besides; nothing personal.

    Returns:
        False if the order's state does not allow it, or its timeline is too long for
        one more of what anybody may repeat; nothing is changed then.
    """
    targets = {
        None if target == state else target
        for (state, moved), target in ORDER_MACHINE.moves.items()
        if moved == event
    }
    assert len(targets) == 1, f"{event} leads to different places: {targets}"
    (target,) = targets
    sources = ORDER_MACHINE.sources(event)
    until = _REPEATED_UNTIL if event in _REPEATABLE else _NUMBERED_UNTIL
    number = await connection.fetchval(
        MOVE_ORDER, *key, target, sources, event, actor, dict(detail), until
    )
    return number is not None


async def add_refunded(connection: Connection, key: OrderKey, amount_minor: int) -> bool:
    """
    Count money that goes back, together with the refund's row; True if it is all of it now.

    The caller holds the order's row and has looked that the amount is there.
    """
    is_whole = await connection.fetchval(ADD_REFUNDED, *key, amount_minor)
    assert is_whole is not None, f"more than was paid for {key}"
    return bool(is_whole)


async def mark_refunded(
    connection: Connection,
    key: OrderKey,
    reason: OrderReason | None,
    *,
    actor: str,
    detail: Mapping[str, object],
) -> bool:
    """
    Move a paid order to refunded and let go of its units, once.

    In the transaction that writes the refund which makes it whole: from then on the
    order cannot be shipped (docs/CORRECTNESS.md §4).

    Returns:
        False if it is not paid any more, or not wholly refunded; nothing is changed then.
    """
    event = OrderEvent.REFUNDED_IN_FULL
    number = await connection.fetchval(
        MARK_REFUNDED, *key, reason, ORDER_MACHINE.sources(event), event, actor, dict(detail)
    )
    return number is not None
