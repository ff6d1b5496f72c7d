"""
Groups in Postgres: one function per business act, each a guarded statement.

Locks are taken in the order: orders (by key), lease row, groups (by name). The flush begins
with the lease row and inserts orders that nobody else knows yet.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.orders.groups.group import Group, GroupKey, GroupState, Incomplete, Merge
from app.orders.life_store import move_order
from app.orders.order import Order, OrderEvent, OrderReason, OrderState
from app.orders.store import ask_to_close, insert_outbox
from app.storage.shards import Connection, Shard

REFUND_MEMBER: Final = "group_refund"
"""Kind of the outbox row that asks payments for a member's money back."""

_THIS_GROUP: Final = "sale = $1 AND bucket = $2 AND id = $3"

SELECT_GROUP: Final = """
SELECT g.size, g.seats_paid, g.state, g.expires_at, g.merged_into,
       CASE WHEN g.state = 'formed' THEN g.size
            ELSE (SELECT count(*) FROM orders o
                  WHERE (o.sale, o.bucket, o.group_id) = (g.sale, g.bucket, g.id)
                    AND o.units_held > 0) END::int AS seats_taken
FROM groups g WHERE g.sale = $1 AND g.bucket = $2 AND g.id = $3"""

# Two last payments at the same instant: the second waits for the row and sees the first.
PAY_SEAT: Final = f"""
UPDATE groups
SET seats_paid = seats_paid + 1,
    state = CASE WHEN seats_paid + 1 = size THEN 'formed' ELSE state END,
    settled_at = CASE WHEN seats_paid + 1 = size THEN now() END
WHERE {_THIS_GROUP} AND state = 'open'
RETURNING state"""

SELECT_IS_FORMED: Final = f"SELECT state = 'formed' FROM groups WHERE {_THIS_GROUP}"

CLAIM_EXPIRED: Final = """
UPDATE groups g SET state = 'failing', settled_at = now()
FROM (SELECT sale, bucket, id FROM groups WHERE state = 'open' AND expires_at <= now()
      ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED) due
WHERE (g.sale, g.bucket, g.id) = (due.sale, due.bucket, due.id)
RETURNING g.id"""

# The one who joined first leads from then on, unless the sale's policy ends the group.
JUDGE_LEADERLESS: Final = """
WITH due AS (
    SELECT g.sale, g.bucket, g.id, l.group_leader_leaves AS policy
    FROM groups g JOIN bucket_leases l USING (sale, bucket)
    WHERE g.state = 'open' AND g.leader_left LIMIT $1 FOR UPDATE OF g SKIP LOCKED
), judged AS (
    SELECT due.*, heir.epoch, heir.seq,
           policy = 'hand_over' AND heir.seq IS NOT NULL AS goes_on
    FROM due LEFT JOIN LATERAL (
        SELECT o.epoch, o.seq FROM orders o
        WHERE (o.sale, o.bucket, o.group_id) = (due.sale, due.bucket, due.id)
          AND o.state IN ('pending', 'paid')
        ORDER BY o.placed_at, o.epoch, o.seq LIMIT 1) heir ON true
)
UPDATE groups g
SET leader_left = NOT judged.goes_on,
    leader_epoch = CASE WHEN judged.goes_on THEN judged.epoch ELSE g.leader_epoch END,
    leader_seq = CASE WHEN judged.goes_on THEN judged.seq ELSE g.leader_seq END,
    state = CASE WHEN judged.goes_on THEN g.state ELSE 'failing' END,
    settled_at = CASE WHEN judged.goes_on THEN NULL ELSE now() END
FROM judged WHERE (g.sale, g.bucket, g.id) = (judged.sale, judged.bucket, judged.id)
RETURNING g.id"""

SELECT_FAILING: Final = """
SELECT sale, bucket, id FROM groups WHERE state = 'failing' ORDER BY settled_at LIMIT $1"""
LOCK_MEMBERS: Final = """
SELECT epoch, seq, shopper, state, group_id FROM orders
WHERE sale = $1 AND bucket = $2 AND group_id = ANY($3::text[]) AND units_held > 0
ORDER BY epoch, seq FOR UPDATE"""
MARK_FAILED: Final = f"""
UPDATE groups SET state = 'failed' WHERE {_THIS_GROUP} AND state = 'failing' RETURNING id"""

# Not before the moves that bring members to it are applied: they would come after this one.
SELECT_TO_RELEASE: Final = """
SELECT g.sale, g.bucket, g.id FROM groups g
WHERE g.state IN ('formed', 'failed') AND g.released_at IS NULL AND NOT EXISTS (
    SELECT FROM bucket_moves m
    WHERE m.sale = g.sale AND m.bucket = g.bucket AND m.kind = 'seat' AND m.state = 'asked'
      AND m.members_group = g.id)
ORDER BY g.settled_at LIMIT $1"""
MARK_RELEASED: Final = f"""
UPDATE groups SET released_at = now()
WHERE {_THIS_GROUP} AND state IN ('formed', 'failed') AND released_at IS NULL
RETURNING state, size, expires_at"""

LOCK_LEASE: Final = """
SELECT epoch, state FROM bucket_leases WHERE sale = $1 AND bucket = $2 FOR SHARE"""
INSERT_SEAT_MOVE: Final = """
INSERT INTO bucket_moves (sale, bucket, kind, units, group_id, seats, group_expires_at, members,
                          members_group, epoch)
VALUES ($1, $2, 'seat', 0, $3, $4, $5, $6, $7, $8)"""

SELECT_TO_SHUT: Final = """
SELECT g.sale, g.bucket, g.id FROM groups g JOIN bucket_leases l USING (sale, bucket)
WHERE g.state = 'open' AND g.shut_at IS NULL AND l.group_rescue_seconds > 0
  AND g.expires_at <= now() + make_interval(secs => l.group_rescue_seconds)
ORDER BY g.expires_at LIMIT $1"""
MARK_SHUT: Final = f"""
UPDATE groups SET shut_at = now() WHERE {_THIS_GROUP} AND state = 'open' AND shut_at IS NULL
RETURNING expires_at"""

# Everybody who joined before the group was shut has a row: the flush has passed the orders
# placed until then, or a later epoch began with the group shut. A group whose leader has left is
# judged first: where that ends it, those merged with it would end, too. Who was taken along to
# a group is a member of it in Redis before that one is merged: else the later move comes first.
SELECT_RESCUABLE: Final = """
SELECT g.sale, g.bucket, g.id, g.size,
       (SELECT count(*) FROM orders o
        WHERE (o.sale, o.bucket, o.group_id) = (g.sale, g.bucket, g.id)
          AND o.units_held > 0)::int AS seats
FROM groups g JOIN bucket_leases l USING (sale, bucket)
WHERE g.state = 'open' AND g.shut_at IS NOT NULL AND g.expires_at > now()
  AND NOT g.leader_left AND NOT EXISTS (
    SELECT FROM bucket_moves m
    WHERE m.sale = g.sale AND m.bucket = g.bucket AND m.kind = 'seat' AND m.group_id = g.id
      AND l.state <> 'closed' AND m.epoch = l.epoch
      AND (m.state = 'asked' OR m.orders_placed > l.orders_seen))
  AND NOT EXISTS (
    SELECT FROM bucket_moves m
    WHERE m.sale = g.sale AND m.bucket = g.bucket AND m.kind = 'seat' AND m.members_group = g.id
      AND l.state <> 'closed' AND m.epoch = l.epoch AND m.state = 'asked')
ORDER BY g.sale, g.bucket, g.opened_at, g.id LIMIT $1"""
LOCK_SHUT_GROUPS: Final = """
SELECT id, size, expires_at FROM groups
WHERE sale = $1 AND bucket = $2 AND id = ANY($3::text[]) AND state = 'open'
  AND shut_at IS NOT NULL AND expires_at > now() AND NOT leader_left
ORDER BY id FOR UPDATE"""
# Asked once the groups are locked: who locked the members may have begun to wait for them
# before another merge brought in more.
COUNT_MEMBERS: Final = """
SELECT count(*) FROM orders
WHERE sale = $1 AND bucket = $2 AND group_id = ANY($3::text[]) AND units_held > 0"""
MOVE_MEMBERS: Final = """
UPDATE orders SET group_id = $3
WHERE sale = $1 AND bucket = $2 AND group_id = ANY($4::text[]) AND units_held > 0"""
MARK_MERGED: Final = """
UPDATE groups SET state = 'merged', merged_into = $3, settled_at = now(), released_at = now()
WHERE sale = $1 AND bucket = $2 AND id = ANY($4::text[])"""
FILL_TARGET: Final = f"""
UPDATE groups
SET seats_paid = $4, expires_at = $5,
    state = CASE WHEN $4 = size THEN 'formed' ELSE state END,
    settled_at = CASE WHEN $4 = size THEN now() END
WHERE {_THIS_GROUP}"""


class SeatPaid(enum.Enum):
    """What a payment met in its group."""

    HELD = enum.auto()  # others have to pay yet
    FORMED = enum.auto()
    OVER = enum.auto()  # the group has failed; the money goes back


@dataclass(frozen=True, slots=True)
class Member:
    """An order that takes a seat."""

    key: OrderKey
    shopper: str
    state: OrderState
    group: str


@dataclass(frozen=True, slots=True)
class _SeatMove:
    """How a group's entry in Redis stands from now on, and where its members go."""

    group: str
    expires_at: datetime
    seats: int | None = None
    members: tuple[str, ...] = ()
    members_group: str | None = None


async def read_group(shard: Shard, key: GroupKey) -> Group | None:
    """Return a group, or None while the order that opens it is not flushed."""
    async with shard.connection() as connection:
        row = await connection.fetchrow(SELECT_GROUP, *key)
    if row is None:
        return None
    return Group(
        key=key,
        size=row["size"],
        seats_taken=row["seats_taken"],
        seats_paid=row["seats_paid"],
        state=GroupState(row["state"]),
        expires_at=row["expires_at"],
        merged_into=row["merged_into"],
    )


async def pay_seat(connection: Connection, order: OrderKey, group: str) -> SeatPaid:
    """
    Count a member's payment, in the transaction that marks the order paid.

    The one UPDATE that pays the last seat forms the group. In a group that is over the payment
    is not lost either: its refund is asked for in the same transaction.
    """
    state = await connection.fetchval(PAY_SEAT, order.sale, order.bucket, group)
    if state is not None:
        return SeatPaid.FORMED if state == GroupState.FORMED else SeatPaid.HELD
    await ask_for_refund(connection, order)
    return SeatPaid.OVER


async def is_whole(connection: Connection, order: Order) -> bool:
    """Say whether an order waits for nobody: it is in no group, or its group has formed."""
    if order.group_id is None:
        return True
    key = (order.key.sale, order.key.bucket, order.group_id)
    return bool(await connection.fetchval(SELECT_IS_FORMED, *key))


async def ask_for_refund(connection: Connection, order: OrderKey) -> None:
    """Ask payments to give a member's money back, once, in the caller's transaction."""
    await insert_outbox(connection, REFUND_MEMBER, _business_id(order), order._asdict())


async def claim_expired_groups(shard: Shard, groups_max: int) -> int:
    """Give up groups whose time is over: no payment forms them any more."""
    async with shard.transaction() as connection:
        return len(await connection.fetch(CLAIM_EXPIRED, groups_max))


async def judge_leaderless_groups(shard: Shard, groups_max: int) -> int:
    """Hand groups whose leader has left to the next member, or give them up."""
    async with shard.transaction() as connection:
        return len(await connection.fetch(JUDGE_LEADERLESS, groups_max))


async def failing_groups(shard: Shard, groups_max: int) -> list[GroupKey]:
    """Return groups that were given up and whose members are not told yet."""
    return await _select_groups(shard, SELECT_FAILING, groups_max)


async def fail_group(shard: Shard, key: GroupKey) -> bool:
    """
    End a group's members: close the unpaid, ask for the refund of the paid.

    Returns:
        False if somebody else has done it.
    """
    async with shard.transaction() as connection:
        for member in await _lock_members(connection, key, [key.name]):
            await _end_member(connection, member)
        failpoint("groups.before_failed")
        return await connection.fetchval(MARK_FAILED, *key) is not None


async def groups_to_release(shard: Shard, groups_max: int) -> list[GroupKey]:
    """Return groups that are over and whose members Redis still counts."""
    return await _select_groups(shard, SELECT_TO_RELEASE, groups_max)


async def release_group(shard: Shard, key: GroupKey) -> None:
    """
    Let a group's members go, so that each may be in another one, and shut it in Redis.

    The members of a group that has formed hear of it in their orders' timelines.
    """
    async with shard.transaction() as connection:
        members = await _lock_members(connection, key, [key.name])
        epoch = await _lock_open_epoch(connection, key)
        row = await connection.fetchrow(MARK_RELEASED, *key)
        if row is None:
            return
        is_formed = GroupState(row["state"]) is GroupState.FORMED
        if is_formed:
            await _tell(connection, members, OrderEvent.GROUP_FORMED, {})
        move = _SeatMove(
            key.name,
            row["expires_at"],
            seats=row["size"] if is_formed else 0,
            members=tuple(member.shopper for member in members),
        )
        await _insert_moves(connection, key, epoch, [move])
        failpoint("groups.before_release")


async def groups_to_shut(shard: Shard, groups_max: int) -> list[GroupKey]:
    """Return incomplete groups whose rescue begins."""
    return await _select_groups(shard, SELECT_TO_SHUT, groups_max)


async def shut_group(shard: Shard, key: GroupKey) -> None:
    """Let nobody join a group any more, by a seat move."""
    async with shard.transaction() as connection:
        epoch = await _lock_open_epoch(connection, key)
        expires_at = await connection.fetchval(MARK_SHUT, *key)
        if expires_at is not None:
            await _insert_moves(connection, key, epoch, [_SeatMove(key.name, expires_at)])


async def rescuable_groups(
    shard: Shard, groups_max: int
) -> dict[tuple[int, int, int], list[Incomplete]]:
    """Return shut groups whose members all have rows: (sale, bucket, size) -> oldest first."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_RESCUABLE, groups_max)
    found: dict[tuple[int, int, int], list[Incomplete]] = {}
    for row in rows:
        bucket = (row["sale"], row["bucket"], row["size"])
        found.setdefault(bucket, []).append(Incomplete(row["id"], row["seats"]))
    return found


async def merge_groups(shard: Shard, sale: int, bucket: int, merge: Merge) -> bool:
    """
    Bring the members of several incomplete groups together in one.

    Nobody's deadline becomes earlier: the target ends with the last of them. If every member
    has paid already, the group forms here.

    Returns:
        False if they do not fill one any more; nothing is changed then.
    """
    key = GroupKey(sale, bucket, merge.target)
    names = [merge.target, *merge.sources]
    async with shard.transaction() as connection:
        members = await _lock_members(connection, key, names)
        epoch = await _lock_open_epoch(connection, key)
        rows = await connection.fetch(LOCK_SHUT_GROUPS, sale, bucket, names)
        ends = {row["id"]: row["expires_at"] for row in rows}
        if len(ends) != len(names) or len(members) != rows[0]["size"]:
            return False
        if await connection.fetchval(COUNT_MEMBERS, sale, bucket, names) != len(members):
            return False
        moved = [member for member in members if member.group != merge.target]
        sources = list(merge.sources)
        await connection.execute(MOVE_MEMBERS, sale, bucket, merge.target, sources)
        await _tell(connection, moved, OrderEvent.GROUP_MERGED, {})
        await connection.execute(MARK_MERGED, sale, bucket, merge.target, sources)
        paid = sum(member.state is OrderState.PAID for member in members)
        last_end = max(ends.values())
        await connection.execute(FILL_TARGET, *key, paid, last_end)
        moves = [_SeatMove(key.name, last_end, seats=len(members))]
        moves += [_departure(name, ends[name], moved, merge.target) for name in merge.sources]
        await _insert_moves(connection, key, epoch, moves)
        failpoint("groups.before_merge")
    return True


def _departure(group: str, expires_at: datetime, moved: Sequence[Member], target: str) -> _SeatMove:
    shoppers = tuple(member.shopper for member in moved if member.group == group)
    return _SeatMove(group, expires_at, seats=0, members=shoppers, members_group=target)


async def _select_groups(shard: Shard, statement: str, groups_max: int) -> list[GroupKey]:
    async with shard.connection() as connection:
        rows = await connection.fetch(statement, groups_max)
    return [GroupKey(*row) for row in rows]


async def _lock_members(
    connection: Connection, key: GroupKey, names: Sequence[str]
) -> list[Member]:
    rows = await connection.fetch(LOCK_MEMBERS, key.sale, key.bucket, list(names))
    return [
        Member(
            OrderKey(key.sale, key.bucket, row["epoch"], row["seq"]),
            row["shopper"],
            OrderState(row["state"]),
            row["group_id"],
        )
        for row in rows
    ]


async def _end_member(connection: Connection, member: Member) -> None:
    match member.state:
        case OrderState.PENDING:
            await ask_to_close(connection, member.key, OrderReason.GROUP_FAILED, actor="groups")
        case OrderState.PAID:
            await ask_for_refund(connection, member.key)
        case _:
            pass  # closing already: should it turn out to be paid, `pay_seat` sees to it


async def _tell(
    connection: Connection,
    members: Sequence[Member],
    event: OrderEvent,
    detail: dict[str, object],
) -> None:
    """Write an event that leaves the order where it is into each member's timeline."""
    for member in members:
        await move_order(connection, member.key, event, actor="groups", detail=detail)


async def _lock_open_epoch(connection: Connection, key: GroupKey) -> int | None:
    """Keep a rebuild from reading the groups before we have changed them; None: closed."""
    lease = await connection.fetchrow(LOCK_LEASE, key.sale, key.bucket)
    assert lease is not None, key
    return None if lease["state"] == "closed" else int(lease["epoch"])


async def _insert_moves(
    connection: Connection, key: GroupKey, epoch: int | None, moves: Sequence[_SeatMove]
) -> None:
    """Write seat moves; a bucket that is closed has nobody left to tell."""
    if epoch is None:
        return
    for move in moves:
        await connection.execute(
            INSERT_SEAT_MOVE,
            key.sale,
            key.bucket,
            move.group,
            move.seats,
            move.expires_at,
            list(move.members),
            move.members_group,
            epoch,
        )


def _business_id(order: OrderKey) -> str:
    return "/".join(map(str, order))
