"""top_up, withdraw_units and return_units: each move once, and only in its own epoch."""

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from app.inventory.bucket import (
    ForgottenKey,
    MoveAnswer,
    MoveCode,
    RememberedOrder,
    return_units,
    top_up,
    withdraw_units,
)
from app.kernel.errors import BrokenState, RedisRefused
from app.orders.answers import PlaceCode, Placed, Refused, Replay
from tests.lua.bucket_on_valkey import (
    EPOCH,
    INCARNATION,
    BucketOnValkey,
    an_order,
    fingerprint,
    key_hash,
    table,
)

# ann holds 2 of 10 units, bob 1.
STORY: Final = """
# move  act       shopper units -> code     units
  m1    top_up    -       5     -> DONE     12
  m1    top_up    -       5     -> ALREADY  12
  m2    withdraw  -       4     -> DONE     4
  m2    withdraw  -       4     -> ALREADY  4
  m3    return    ann     1     -> DONE     9
  m3    return    ann     1     -> ALREADY  9
  m4    return    ann     1     -> DONE     10
  m5    return    bob     1     -> DONE     11
  m6    withdraw  -       99    -> DONE     11   # no more than are left
  m6    withdraw  -       99    -> ALREADY  11
  m7    withdraw  -       1     -> DONE     0
  m8    top_up    -       3     -> DONE     3
  m7    withdraw  -       1     -> ALREADY  0    # what it took is final
"""

NOT_READY_STATES: Final = """
  fenced          1
  fenced          -
  incarnation     fedcba9876543210
  remaining       nan
"""

ACTS: Final = ("top_up", "withdraw", "return")

Move = Callable[[str, str, str, int], Awaitable[MoveAnswer]]


@pytest.fixture
async def move(bucket: BucketOnValkey) -> Move:
    """Apply a move by the name of its act, to a bucket where ann holds 2 and bob 1."""
    await bucket.place(an_order("a", "ann", 2), an_order("b", "bob", 1))

    async def apply(act: str, move_id: str, shopper: str, units: int) -> MoveAnswer:
        at = (bucket.redis, bucket.keys)
        if act == "top_up":
            return await top_up(*at, incarnation=INCARNATION, move_id=move_id, units=units)
        if act == "withdraw":
            return await withdraw_units(
                *at, incarnation=INCARNATION, move_id=move_id, units_wanted=units
            )
        return await return_units(
            *at, incarnation=INCARNATION, move_id=move_id, shopper=shopper, units=units
        )

    return apply


async def test_a_move_is_applied_once(bucket: BucketOnValkey, move: Move) -> None:
    for move_id, act, shopper, units, code, told in table(STORY):
        answer = await move(act, move_id, shopper, int(units))
        assert answer == MoveAnswer(MoveCode[code], int(told)), move_id
    assert await bucket.held() == {}
    assert await bucket.numbers("remaining", "units_returned", "units_placed") == [3, 3, 3]


@pytest.mark.parametrize("act", ACTS)
async def test_a_repeated_move_writes_nothing(bucket: BucketOnValkey, move: Move, act: str) -> None:
    await move(act, "m1", "ann", 1)
    before = await bucket.everything()
    assert (await move(act, "m1", "ann", 1)).code is MoveCode.ALREADY
    assert await bucket.everything() == before


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("field", "value"), table(NOT_READY_STATES))
async def test_a_state_that_takes_no_moves(
    bucket: BucketOnValkey, move: Move, act: str, field: str, value: str
) -> None:
    await move(act, "m0", "ann", 1)
    await bucket.change(**{field: value})
    before = await bucket.everything()
    for move_id in ("m0", "m1"):
        assert await move(act, move_id, "ann", 1) == MoveAnswer(MoveCode.NOT_READY, 0)
    assert await bucket.everything() == before


@pytest.mark.parametrize("act", ACTS)
async def test_a_missing_state_is_not_ready(bucket: BucketOnValkey, move: Move, act: str) -> None:
    await bucket.redis.delete(bucket.keys.state)
    assert await move(act, "m1", "ann", 1) == MoveAnswer(MoveCode.NOT_READY, 0)
    assert await bucket.redis.exists(bucket.keys.state, bucket.keys.moves) == 0


@pytest.mark.parametrize(
    ("shopper", "units"),
    [("ann", 3), ("nobody", 1), ("ann", 0), ("ann", -1)],
    ids=["more than held", "of nobody", "nothing", "less than nothing"],
)
async def test_an_impossible_return_fails_before_any_write(
    bucket: BucketOnValkey, move: Move, shopper: str, units: int
) -> None:
    before = await bucket.everything()
    with pytest.raises(BrokenState):
        await move("return", "m1", shopper, units)
    assert await bucket.everything() == before


@pytest.mark.parametrize("act", ["top_up", "withdraw"])
async def test_a_move_of_no_units_is_a_bug(move: Move, act: str) -> None:
    with pytest.raises(BrokenState):
        await move(act, "m1", "-", 0)


async def test_returned_units_are_sold_again(bucket: BucketOnValkey, move: Move) -> None:
    await bucket.change(remaining=0)
    await move("return", "m1", "ann", 2)
    assert await bucket.place(an_order("c", "ann", 2)) == [Placed(2)]


async def test_a_closed_orders_key_stays_remembered(bucket: BucketOnValkey, move: Move) -> None:
    await move("return", "m1", "bob", 1)
    (answer,) = await bucket.place(an_order("b", "bob", 1))
    assert isinstance(answer, Replay)
    assert answer.seq == 1


async def test_moves_expire_with_the_bucket(bucket: BucketOnValkey, move: Move) -> None:
    await move("top_up", "m1", "-", 1)
    expires_at_ms = await bucket.redis.pexpiretime(bucket.keys.state)
    assert await bucket.redis.pexpiretime(bucket.keys.moves) == expires_at_ms > 0


async def test_a_full_server_lets_units_out_but_none_in(bucket: BucketOnValkey, move: Move) -> None:
    await bucket.redis.config_set("maxmemory", 1)
    try:
        assert (await move("return", "m1", "ann", 1)).code is MoveCode.DONE
        assert (await move("withdraw", "m2", "-", 1)).code is MoveCode.DONE
        with pytest.raises(RedisRefused):
            await move("top_up", "m3", "-", 1)
    finally:
        await bucket.redis.config_set("maxmemory", 0)


async def forget(
    bucket: BucketOnValkey, order: RememberedOrder, owner: RememberedOrder | None = None
) -> None:
    await return_units(
        bucket.redis,
        bucket.keys,
        incarnation=INCARNATION,
        move_id="m1",
        shopper="bob",
        units=1,
        forgotten=ForgottenKey(key_hash("b"), order, owner),
    )


async def dead_order(bucket: BucketOnValkey) -> RememberedOrder:
    remembered = await bucket.remembered("b")
    assert remembered is not None
    return remembered


@pytest.mark.usefixtures("move")
async def test_a_dead_letters_key_is_forgotten(bucket: BucketOnValkey) -> None:
    await forget(bucket, await dead_order(bucket))
    assert await bucket.remembered("b") is None
    assert await bucket.place(an_order("b", "bob", 1)) == [Placed(2)]


@pytest.mark.usefixtures("move")
async def test_a_taken_key_is_handed_to_its_owner(bucket: BucketOnValkey) -> None:
    owner = RememberedOrder(EPOCH - 1, 44, 1_700_000_000_000, fingerprint("a"))
    await forget(bucket, await dead_order(bucket), owner)
    assert await bucket.place(an_order("b", "bob", 1)) == [
        Replay(44, EPOCH - 1, owner.placed_at_ms)
    ]


@pytest.mark.usefixtures("move")
async def test_a_key_that_stands_for_another_order_is_left_alone(bucket: BucketOnValkey) -> None:
    dead = await dead_order(bucket)
    await forget(bucket, dead._replace(seq=dead.seq + 1))
    assert await bucket.remembered("b") == dead
    assert await bucket.held() == {"ann": 2}


@pytest.mark.usefixtures("move")
async def test_a_fenced_bucket_forgets_no_key(bucket: BucketOnValkey) -> None:
    await bucket.change(fenced=1)
    await forget(bucket, await dead_order(bucket))
    assert await bucket.remembered("b") is not None
    assert await bucket.place(an_order("b", "bob", 1)) == [Refused(PlaceCode.STALE)]
