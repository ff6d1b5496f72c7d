"""return_group_units and set_seats, by tables of acts."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from app.inventory.bucket import (
    ForgottenKey,
    MoveAnswer,
    MoveCode,
    RememberedOrder,
    fence_bucket,
)
from app.inventory.seats import GroupEntry, return_group_units, set_seats
from app.kernel.clock import instant, unix_ms
from app.kernel.errors import BrokenState
from app.storage.lua import load_scripts
from app.storage.script_connection import ScriptConnection
from tests.lua.bucket_on_valkey import EPOCH, INCARNATION, an_order, key_hash, table
from tests.lua.group_on_valkey import GroupBucketOnValkey

ENDS_AT: Final = datetime.fromisoformat("2030-01-01T00:00:00+00:00")

# Ann opened 7.0, Bob and Cat joined it, Dan opened 7.3; each holds one of ten units.
RETURNS: Final = """
# move shopper group is_shut -> code     remaining seats members_of_7.0
  m1   bob     7.0   no      -> DONE     7         2     ann,cat
  m1   bob     7.0   no      -> ALREADY  7         2     ann,cat
  m2   cat     7.0   yes     -> DONE     8         2     ann       # a shut group keeps its count
  m3   dan     7.0   no      -> DONE     9         1     ann       # his place is in another
"""


@pytest.fixture
async def bucket(
    redis: Redis, connection: ScriptConnection, deployment: str
) -> AsyncIterator[GroupBucketOnValkey]:
    """A bucket in which two groups have been opened."""
    await load_scripts(redis, INCARNATION)
    opened = GroupBucketOnValkey(redis, connection, deployment)
    await opened.open()
    for key, shopper, group in (
        ("k0", "ann", "new"),
        ("k1", "bob", "7.0"),
        ("k2", "cat", "7.0"),
        ("k3", "dan", "new"),
    ):
        await opened.place(an_order(key, shopper)._replace(group=group))
    yield opened
    await redis.delete(*opened.keys.all)


async def give_back(
    bucket: GroupBucketOnValkey, move_id: str, shopper: str, group: str, **more: Any
) -> MoveAnswer:
    return await return_group_units(
        bucket.redis,
        bucket.keys,
        incarnation=INCARNATION,
        move_id=move_id,
        shopper=shopper,
        units=1,
        group=group,
        **more,
    )


async def settle(bucket: GroupBucketOnValkey, **more: Any) -> MoveAnswer:
    given = {"move_id": "m1", "group": "7.0", "seats": None, "members": [], "members_group": None}
    return await set_seats(
        bucket.redis,
        bucket.keys,
        incarnation=INCARNATION,
        expires_at=ENDS_AT,
        **{**given, **more},
    )


async def members_of(bucket: GroupBucketOnValkey, group: str) -> set[str]:
    return {shopper for shopper, name in (await bucket.members()).items() if name == group}


async def test_returns_one_by_one(bucket: GroupBucketOnValkey) -> None:
    for move, shopper, group, is_shut, code, remaining, seats, members in table(RETURNS):
        entry = (await bucket.groups())[group]
        await bucket.set_group(group, entry._replace(is_shut=is_shut == "yes"))
        answer = await give_back(bucket, move, shopper, group)
        assert answer == MoveAnswer(MoveCode[code], int(remaining))
        assert (await bucket.groups())[group].seats == int(seats)
        assert await members_of(bucket, "7.0") == set(members.split(","))
        assert shopper not in await bucket.held()
    assert (await bucket.members())["dan"] == "7.3"


async def test_a_seat_that_came_back_can_be_taken_again(bucket: GroupBucketOnValkey) -> None:
    await give_back(bucket, "m1", "bob", "7.0")
    for key, shopper in (("k9", "bob"), ("k8", "eve")):
        await bucket.place(an_order(key, shopper)._replace(group="7.0"))
    assert await members_of(bucket, "7.0") == {"ann", "bob", "cat"}
    assert (await bucket.groups())["7.0"].seats == 3


async def test_a_dead_letter_forgets_its_key_too(bucket: GroupBucketOnValkey) -> None:
    dead = RememberedOrder(EPOCH, 1, 0, b"\0" * 8)
    await give_back(bucket, "m1", "bob", "7.0", forgotten=ForgottenKey(key_hash("k1"), dead))
    assert await bucket.remembered("k1") is None


async def test_a_return_of_a_group_that_is_not_there_frees_the_units(
    bucket: GroupBucketOnValkey,
) -> None:
    answer = await give_back(bucket, "m1", "bob", "3.14")
    assert answer == MoveAnswer(MoveCode.DONE, 7)
    assert "3.14" not in await bucket.groups()


async def test_who_holds_nothing_gives_nothing_back(bucket: GroupBucketOnValkey) -> None:
    before = await bucket.everything()
    with pytest.raises(BrokenState):
        await give_back(bucket, "m1", "eve", "7.0")
    assert await bucket.everything() == before


async def test_an_entry_of_another_length_fails_before_any_write(
    bucket: GroupBucketOnValkey,
) -> None:
    await bucket.redis.hset(bucket.keys.groups, "7.0", "x")
    before = await bucket.everything()
    with pytest.raises(BrokenState):
        await give_back(bucket, "m1", "bob", "7.0")
    with pytest.raises(BrokenState):
        await settle(bucket)
    assert await bucket.everything() == before


async def test_shutting_a_group_leaves_its_seats_and_members(bucket: GroupBucketOnValkey) -> None:
    assert await settle(bucket) == MoveAnswer(MoveCode.DONE, 4)  # orders placed until now
    assert (await bucket.groups())["7.0"] == GroupEntry(3, unix_ms(ENDS_AT), is_shut=True)
    assert await members_of(bucket, "7.0") == {"ann", "bob", "cat"}


async def test_a_settled_group_lets_go_of_its_members(bucket: GroupBucketOnValkey) -> None:
    await settle(bucket, seats=0, members=["ann", "bob", "dan", "nobody"])
    assert (await bucket.groups())["7.0"].seats == 0
    assert await bucket.members() == {"cat": "7.0", "dan": "7.3"}


async def test_members_of_a_merged_group_belong_to_the_other(bucket: GroupBucketOnValkey) -> None:
    await settle(bucket, seats=0, members=["ann", "bob", "cat"], members_group="7.3")
    assert await members_of(bucket, "7.3") == {"ann", "bob", "cat", "dan"}


async def test_repeating_a_seat_move_writes_nothing(bucket: GroupBucketOnValkey) -> None:
    await settle(bucket)
    before = await bucket.everything()
    again = await settle(bucket, seats=0, members=["ann"])
    assert again == MoveAnswer(MoveCode.ALREADY, 4)
    assert await bucket.everything() == before


async def test_a_fenced_epoch_takes_no_seat_moves(bucket: GroupBucketOnValkey) -> None:
    await fence_bucket(bucket.redis, bucket.keys)
    assert await settle(bucket) == MoveAnswer(MoveCode.NOT_READY, 0)
    assert await give_back(bucket, "m2", "bob", "7.0") == MoveAnswer(MoveCode.NOT_READY, 0)


def test_an_entry_reads_as_it_was_packed() -> None:
    entry = GroupEntry(100, unix_ms(instant(2**42)), is_shut=True)
    assert GroupEntry.unpack(entry.pack()) == entry
