"""place_group_orders: the seats, by tables; everything else is as place_orders has it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest
from redis.asyncio import Redis

from app.inventory.seats import GroupEntry
from app.kernel.errors import BrokenState
from app.orders.answers import PlaceCode, Placed, Refused, Replay
from app.orders.stream import PlacementRequest, place_orders
from app.storage.lua import load_scripts
from app.storage.script_connection import ScriptConnection
from tests.lua.bucket_on_valkey import (
    INCARNATION,
    an_order,
    fingerprint,
    key_hash,
    pairs,
    table,
    told,
)
from tests.lua.group_on_valkey import GROUP_SIZE, WINDOW_MS, GroupBucketOnValkey
from tests.real_stores import RealStores

STORY: Final = """
# groups of 3, remaining 5, limit 2
# key content shopper quantity group -> code              detail
  k1  a       ann     1        new   -> PLACED            0     # opens group 7.0
  k1  a       ann     1        new   -> REPLAY            0
  k1  b       ann     1        new   -> KEY_MISMATCH      0
  k2  a       ann     1        new   -> IN_ANOTHER_GROUP  0     # she is in 7.0
  k2  a       ann     1        7.0   -> IN_ANOTHER_GROUP  0     # in this one, too
  k3  a       bob     1        7.9   -> GROUP_NOT_FOUND   0
  k3  a       bob     1        7.0   -> PLACED            1     # a refusal is not remembered
  k4  a       cat     3        7.0   -> OVER_LIMIT        2     # no seat was taken
  k4  a       cat     1        7.0   -> PLACED            2     # the last seat
  k5  a       dan     1        7.0   -> GROUP_FULL        0
  k5  a       dan     2        new   -> PLACED            3     # opens group 7.3
  k6  a       eve     1        7.3   -> SOLD_OUT          0     # no seat was taken
  k6  a       eve     1        new   -> SOLD_OUT          0
  k7  a       bob     1        7.3   -> IN_ANOTHER_GROUP  0
  k4  a       cat     1        7.0   -> REPLAY            2     # a member's retry hears no "full"
"""

# Each situation alone gives its code; with a later one it still gives its own.
SITUATIONS: Final = (
    "PAUSED",
    "GROUP_NOT_FOUND",
    "GROUP_FULL",
    "GROUP_EXPIRED",
    "IN_ANOTHER_GROUP",
    "OVER_LIMIT",
    "SOLD_OUT",
    "BACKLOG_FULL",
    "PLACED",
)
# A group that is not there is neither full nor over.
EXCLUSIVE: Final = (
    ("GROUP_NOT_FOUND", "GROUP_FULL"),
    ("GROUP_NOT_FOUND", "GROUP_EXPIRED"),
)
SITUATION_PAIRS: Final = [pair for pair in pairs(SITUATIONS) if pair not in EXCLUSIVE]

STALE_TERMS: Final = """
  group_size       -
  group_size       1
  group_size       many
  group_window_ms  -
  group_window_ms  0
"""

# Joining ends five seconds before a group does.
ENDS: Final = """
# ms from now -> code
  5500        -> PLACED
  4900        -> GROUP_EXPIRED
  -100        -> GROUP_EXPIRED
"""

ROUNDS: Final = 500


@pytest.fixture
async def bucket(
    redis: Redis, connection: ScriptConnection, deployment: str
) -> AsyncIterator[GroupBucketOnValkey]:
    """A bucket of 10 units, limit 2, groups of 3, open for an hour."""
    await load_scripts(redis, INCARNATION)
    opened = GroupBucketOnValkey(redis, connection, deployment)
    await opened.open()
    yield opened
    await redis.delete(*opened.keys.all)


def story() -> tuple[list[PlacementRequest], list[tuple[str, int]]]:
    rows = table(STORY)
    orders = [
        an_order(key, shopper, int(units), content)._replace(group=group)
        for key, content, shopper, units, group, *_ in rows
    ]
    return orders, [(code, int(detail)) for *_, code, detail in rows]


def opens(key: str = "k1", shopper: str = "ann", quantity: int = 1) -> PlacementRequest:
    return an_order(key, shopper, quantity)._replace(group="new")


def joins(group: str, key: str = "k2", shopper: str = "bob", quantity: int = 1) -> PlacementRequest:
    return an_order(key, shopper, quantity)._replace(group=group)


async def test_orders_placed_one_by_one(bucket: GroupBucketOnValkey) -> None:
    await bucket.change(remaining=5)
    orders, answers = story()
    assert [told((await bucket.place(order))[0]) for order in orders] == answers


async def test_later_orders_of_a_batch_see_the_earlier_ones(bucket: GroupBucketOnValkey) -> None:
    await bucket.change(remaining=5)
    orders, answers = story()
    assert [told(answer) for answer in await bucket.place(*orders)] == answers
    (entry,) = await bucket.entries()
    assert [order.group for order in entry.orders] == ["7.0", "7.0", "7.0", "7.3"]
    assert await bucket.members() == {"ann": "7.0", "bob": "7.0", "cat": "7.0", "dan": "7.3"}
    groups = await bucket.groups()
    assert {name: group.seats for name, group in groups.items()} == {"7.0": 3, "7.3": 1}
    ends = {group.expires_at_ms for group in groups.values()}
    assert ends == {entry.placed_at_ms + WINDOW_MS}


@pytest.mark.parametrize(("first", "second"), SITUATION_PAIRS)
async def test_the_earlier_check_wins(bucket: GroupBucketOnValkey, first: str, second: str) -> None:
    met = {first, second}
    await bucket.change(remaining=2)
    await bucket.place(opens("k0", "zoe"))
    if "IN_ANOTHER_GROUP" in met:
        await bucket.place(opens("k1", "bob"))
    if "SOLD_OUT" in met:
        await bucket.change(remaining=0)
    if "BACKLOG_FULL" in met:
        await bucket.change(backlog_max=0)
    if "PAUSED" in met:
        await bucket.change(gate="paused")
    now_ms = await bucket.now_ms()
    seats = GROUP_SIZE if "GROUP_FULL" in met else 1
    ends_at_ms = now_ms - 1 if "GROUP_EXPIRED" in met else now_ms + WINDOW_MS
    await bucket.set_group("7.0", GroupEntry(seats, ends_at_ms, is_shut=False))
    group = "7.99" if "GROUP_NOT_FOUND" in met else "7.0"
    if "OVER_LIMIT" in met:
        await bucket.change(limit=0)
    before = await bucket.everything()
    (answer,) = await bucket.place(joins(group))
    assert told(answer)[0] == first
    assert (await bucket.everything() == before) == (first != "PLACED")


@pytest.mark.parametrize(("field", "value"), table(STALE_TERMS))
async def test_without_terms_nobody_may_sell(
    bucket: GroupBucketOnValkey, field: str, value: str
) -> None:
    await bucket.change(**{field: value})
    assert await bucket.place(opens()) == [Refused(PlaceCode.STALE)]


@pytest.mark.parametrize(("offset_ms", "code"), table(ENDS))
async def test_joining_ends_before_the_group(
    bucket: GroupBucketOnValkey, offset_ms: str, code: str
) -> None:
    await bucket.place(opens())
    ends_at_ms = await bucket.now_ms() + int(offset_ms)
    await bucket.set_group("7.0", GroupEntry(1, ends_at_ms, is_shut=False))
    assert told((await bucket.place(joins("7.0")))[0])[0] == code


async def test_a_shut_group_takes_nobody(bucket: GroupBucketOnValkey) -> None:
    await bucket.place(opens())
    group = (await bucket.groups())["7.0"]
    await bucket.set_group("7.0", group._replace(is_shut=True))
    assert await bucket.place(joins("7.0")) == [Refused(PlaceCode.GROUP_EXPIRED)]


async def test_an_order_is_written_everywhere(bucket: GroupBucketOnValkey) -> None:
    await bucket.place(opens("k1", "ann", 2), joins("7.0", "k2", "bob", 2))
    (entry,) = await bucket.entries()
    assert [(order.key_hash, order.fingerprint) for order in entry.orders] == [
        (key_hash("k1"), fingerprint("a")),
        (key_hash("k2"), fingerprint("a")),
    ]
    assert await bucket.held() == {"ann": 2, "bob": 2}
    assert await bucket.numbers("remaining", "orders_placed", "units_placed") == [6, 2, 4]


async def test_a_replay_tells_the_order_that_named_the_group(bucket: GroupBucketOnValkey) -> None:
    await bucket.place(opens())
    (entry,) = await bucket.entries()
    assert await bucket.place(opens()) == [Replay(0, 7, entry.placed_at_ms)]


async def test_the_keys_of_groups_expire_with_the_others(bucket: GroupBucketOnValkey) -> None:
    await bucket.place(opens())
    expires_at_ms = await bucket.redis.pexpiretime(bucket.keys.state)
    created = (bucket.keys.groups, bucket.keys.members)
    assert [await bucket.redis.pexpiretime(key) for key in created] == [expires_at_ms] * 2


@pytest.mark.parametrize("name", ["groups", "members"])
async def test_a_state_that_cannot_be_fails_before_any_write(
    bucket: GroupBucketOnValkey, name: str
) -> None:
    await bucket.redis.set(bucket.keys.named(name), "x")
    before = await bucket.everything()
    with pytest.raises(BrokenState):
        await bucket.place(opens())
    assert await bucket.everything() == before


async def test_a_groups_entry_of_another_length_fails_before_any_write(
    bucket: GroupBucketOnValkey,
) -> None:
    await bucket.redis.hset(bucket.keys.groups, "7.0", "x")
    before = await bucket.everything()
    with pytest.raises(BrokenState):
        await bucket.place(joins("7.0"))
    assert await bucket.everything() == before


async def test_an_order_without_a_group_is_a_bug_of_the_caller(bucket: GroupBucketOnValkey) -> None:
    before = await bucket.everything()
    with pytest.raises(BrokenState):
        await bucket.place(an_order())
    assert await bucket.everything() == before


async def test_two_shoppers_at_once_for_the_last_seat(
    bucket: GroupBucketOnValkey, connection: ScriptConnection, stores: RealStores
) -> None:
    """Five hundred groups with one seat left: each time one joins, and the other keeps all."""
    await bucket.change(group_size=2, remaining=3 * ROUNDS, backlog_max=3 * ROUNDS)
    rival = ScriptConnection(
        stores.redis_api_url, client_name="test-rival", connect_timeout_ms=5_000
    )

    async def place(seller: ScriptConnection, order: PlacementRequest) -> str:
        reply = await place_orders(seller, bucket.script, bucket.names, [order], timeout_ms=5_000)
        return told(reply.answers[0])[0]

    for number in range(ROUNDS):
        (leader,) = await bucket.place(opens(f"l{number}", f"leader-{number}"))
        assert isinstance(leader, Placed)
        group = f"7.{leader.seq}"
        wishes = [joins(group, f"{side}{number}", f"{side}-{number}") for side in ("a", "b")]
        answers = await asyncio.gather(place(connection, wishes[0]), place(rival, wishes[1]))
        assert sorted(answers) == ["GROUP_FULL", "PLACED"]
        (await bucket.renew())
    await rival.close()
    held, members = await bucket.held(), await bucket.members()
    assert len(held) == len(members) == 2 * ROUNDS
    assert set(held.values()) == {1}
    assert {group.seats for group in (await bucket.groups()).values()} == {2}
    assert await bucket.numbers("remaining", "orders_placed") == [ROUNDS, 2 * ROUNDS]
