"""
Judge what groups promise: full or refunded, never half; in Redis as in Postgres (I23, I24).

I23 holds at any moment, for each rule compares rows that change together. I24 compares two
stores, and is judged only while nothing is on its way between them.
"""

from typing import Final

from redis.asyncio import Redis

from app.inventory.picture import Offset, take_picture
from app.inventory.seats import SELECT_GROUPS, SELECT_MEMBERS, GroupEntry, entry_from_row
from app.kernel.equation import EXAMPLES_MAX, Doubt, Equation, Relation, none_of, unjudged
from app.kernel.errors import BrokenState, RedisUnavailable
from app.orders.audit import audit_rules, sales_in_scope
from app.orders.audit_stock import subject_of
from app.orders.audit_store import Row, Sales, fetch_all, read_standings, snapshot
from app.orders.groups.audit_store import COUNT_UNSETTLED, GROUP_RULES, SELECT_SALES
from app.storage.keys import BucketKeys
from app.storage.redis import redis_errors
from app.storage.shards import Shard, Shards

_WHAT: Final = "groups and members whose seats differ from Postgres"
_SCAN_FIELDS: Final = 1_000


async def audit_groups(
    shards: Shards, redis: Redis, deployment: str, sale: str | None = None
) -> list[Equation]:
    """
    Judge every invariant of groups; nothing where there is no group sale.

    Args:
        shards: with the map read.
        redis: a client that may read every key.
        deployment: the first part of its keys.
        sale: a public id, or None for all sales.

    Raises:
        UnknownSale: there is none of that id.
        ShardUnavailable: a shard does not answer.
    """
    names = await _group_sales(shards, await sales_in_scope(shards, sale))
    if not names:
        return []
    equations = await audit_rules(shards, GROUP_RULES, list(names), dict(names))
    for shard in shards.all:
        for row in await read_standings(shard, list(names), live=True):
            if row["state"] == "open":
                equations.append(await _audit_seats(shard, redis, deployment, row))
    return equations


async def _group_sales(shards: Shards, sales: Sales) -> dict[int, str]:
    names: dict[int, str] = {}
    for shard in shards.all:
        async with snapshot(shard) as connection:
            rows = await fetch_all(connection, SELECT_SALES, sales)
        names |= {row["sale"]: f"sale {row['sale_id']}" for row in rows}
    return names


async def _audit_seats(shard: Shard, redis: Redis, deployment: str, row: Row) -> Equation:
    """Compare the seats of one bucket; unjudged when anything moved until the last was read."""
    keys = BucketKeys(deployment, row["sale"], row["bucket"], row["epoch"])
    sides = (_WHAT, Relation.EQUAL, "0")
    try:
        before = await _orders_placed(redis, keys)
        told = await _read_redis(redis, keys)
        rows = await _read_shard(shard, row)
        after = await _orders_placed(redis, keys)
    except (RedisUnavailable, BrokenState) as error:
        return unjudged("I24", subject_of(row), sides, Doubt.UNREACHABLE, str(error))
    if rows is None or row["move_ids"] or not before == after == row["orders_seen"]:
        note = "seats are on their way between the stores"
        return unjudged("I24", subject_of(row), sides, Doubt.IN_MOTION, note)
    differing = _differences(told, rows)
    return none_of("I24", subject_of(row), _WHAT, len(differing), differing[:EXAMPLES_MAX])


_Seats = tuple[dict[str, GroupEntry], dict[str, str]]  # groups, and shopper -> live group


def _differences(told: _Seats, rows: _Seats) -> list[str]:
    """Say where Redis differs; the seats of a group that nobody joins any more do not count."""
    groups = told[0].keys() | rows[0].keys()
    found = [
        f"group {name} is {told[0].get(name)} in Redis, {rows[0].get(name)} in Postgres"
        for name in sorted(groups)
        if _what_counts(told[0].get(name)) != _what_counts(rows[0].get(name))
    ]
    return found + [
        f"shopper {shopper} is in {told[1].get(shopper)} in Redis, "
        f"in {rows[1].get(shopper)} in Postgres"
        for shopper in sorted(told[1].keys() | rows[1].keys())
        if told[1].get(shopper) != rows[1].get(shopper)
    ]


def _what_counts(entry: GroupEntry | None) -> GroupEntry | None:
    return entry._replace(seats=0) if entry is not None and entry.is_shut else entry


async def _read_redis(redis: Redis, keys: BucketKeys) -> _Seats:
    with redis_errors(writes=False):
        groups = {
            name.decode(): GroupEntry.unpack(packed)
            async for name, packed in redis.hscan_iter(keys.groups, count=_SCAN_FIELDS)
        }
        members = {
            shopper.decode(): group.decode()
            async for shopper, group in redis.hscan_iter(keys.members, count=_SCAN_FIELDS)
        }
    return groups, members


async def _read_shard(shard: Shard, row: Row) -> _Seats | None:
    """Read what Redis should hold; None when a group or the lease row is on its way."""
    here = (row["sale"], row["bucket"])
    async with snapshot(shard) as connection:
        (unsettled,) = await fetch_all(connection, COUNT_UNSETTLED, *here)
        groups = await fetch_all(connection, SELECT_GROUPS, *here)
        members = await fetch_all(connection, SELECT_MEMBERS, *here)
    standings = await read_standings(shard, [row["sale"]], live=True)
    if unsettled["moving"] or row not in standings:
        return None
    return (
        {group["id"]: entry_from_row(group) for group in groups},
        {member["shopper"]: member["group_id"] for member in members},
    )


async def _orders_placed(redis: Redis, keys: BucketKeys) -> int | None:
    state = (await take_picture(redis, keys, Offset(0, 0))).state
    return state.orders_placed if state else None
