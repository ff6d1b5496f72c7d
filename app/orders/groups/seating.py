"""
Seats in the flush: the rows of groups, and what becomes of an order whose group is over.

Called inside the flush's transaction, after its orders are inserted and while the lease row is
locked; the rows of groups are locked after it (docs/GROUPS.md, locks).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from app.orders.groups.group import GroupState, group_name, opening_order
from app.orders.order import OrderEvent, OrderReason, OrderState
from app.orders.store import NOTE_EVENTS
from app.storage.shards import Connection

# A group whose opening order has no row (a dead letter, or lost in a recovery) is over from
# the start. A group that has a row already stays as it is.
INSERT_GROUPS: Final = """
INSERT INTO groups (sale, bucket, id, size, state, leader_epoch, leader_seq, opened_at, expires_at,
                    settled_at)
SELECT l.sale, l.bucket, g.id, l.group_size,
       CASE WHEN g.is_open THEN 'open' ELSE 'failed' END::group_state,
       g.epoch, g.seq, g.opened_at,
       g.opened_at + make_interval(secs => l.group_window_seconds),
       CASE WHEN g.is_open THEN NULL ELSE now() END
FROM bucket_leases l
CROSS JOIN unnest($3::text[], $4::smallint[], $5::bigint[], $6::timestamptz[], $7::boolean[])
  AS g (id, epoch, seq, opened_at, is_open)
WHERE l.sale = $1 AND l.bucket = $2
ORDER BY g.id
ON CONFLICT DO NOTHING"""

# Who fails a group reads its orders only after its row says so: until then it waits for us.
LOCK_GROUPS: Final = """
SELECT id FROM groups WHERE sale = $1 AND bucket = $2 AND id = ANY($3::text[])
ORDER BY id FOR SHARE"""

# A member pays before the group's end; whose group is over need not begin.
SEAT_ORDERS: Final = f"""
WITH seated AS (
    UPDATE orders o
    SET pay_by = least(o.pay_by, g.expires_at),
        state = CASE WHEN g.state = 'open' THEN o.state ELSE '{OrderState.CLOSING}' END,
        reason = CASE WHEN g.state = 'open' THEN o.reason
                      ELSE '{OrderReason.GROUP_FAILED}' END::order_reason,
        last_event = CASE WHEN g.state = 'open' THEN o.last_event ELSE o.last_event + 1 END
    FROM groups g
    WHERE o.sale = $1 AND o.bucket = $2 AND o.epoch = $3 AND o.seq = ANY($4::bigint[])
      AND (g.sale, g.bucket, g.id) = (o.sale, o.bucket, o.group_id)
      AND (g.state <> 'open' OR o.pay_by > g.expires_at)
    RETURNING o.sale, o.bucket, o.epoch, o.seq, o.state, o.last_event
), moved AS (
    SELECT * FROM seated WHERE state = '{OrderState.CLOSING}'
)
{NOTE_EVENTS.format(event=f"'{OrderEvent.CLOSE_ASKED}'", actor="'flusher'", detail="'{}'::jsonb")}
RETURNING seq"""  # noqa: S608  only constants of ours


class BucketEpoch(NamedTuple):
    """Where a batch belongs."""

    sale: int
    bucket: int
    epoch: int


class GroupOrder(NamedTuple):
    """An order of a group sale in a batch of the flush."""

    seq: int
    group: str  # the name of its group
    placed_at: datetime


async def seat_orders(
    connection: Connection,
    at: BucketEpoch,
    orders: Sequence[GroupOrder],
    inserted: Sequence[int],
) -> None:
    """
    Write the groups that a batch opens, and see every new order into an open one.

    Args:
        connection: in the flush's transaction.
        at: whose lease row is locked.
        orders: every order of the batch, whatever became of it.
        inserted: seqs of those that are new rows.
    """
    opened = _groups_of(at, orders, frozenset(inserted))
    await connection.execute(INSERT_GROUPS, at.sale, at.bucket, *zip(*opened, strict=True))
    await connection.execute(LOCK_GROUPS, at.sale, at.bucket, [group[0] for group in opened])
    await connection.execute(SEAT_ORDERS, *at, list(inserted))


def _groups_of(
    at: BucketEpoch, orders: Sequence[GroupOrder], inserted: frozenset[int]
) -> list[tuple[str, int, int, datetime, bool]]:
    """Return (name, epoch and seq of its leader, opened_at, is_open), once for each group."""
    found: dict[str, tuple[str, int, int, datetime, bool]] = {}
    for order in orders:
        leader = opening_order(at.sale, at.bucket, order.group)
        opens = order.group == group_name(at.epoch, order.seq)
        state = GroupState.OPEN if opens and order.seq in inserted else GroupState.FAILED
        if order.group not in found or opens:
            is_open = state is GroupState.OPEN
            found[order.group] = (order.group, leader.epoch, leader.seq, order.placed_at, is_open)
    return list(found.values())
