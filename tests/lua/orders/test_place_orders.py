"""place_orders, by tables of calls and answers in the order of its checks."""

import asyncio
from typing import Final

import msgpack
import pytest

from app.inventory.bucket import REMEMBERED_FINGERPRINT_BYTES, RememberedOrder
from app.kernel.errors import BrokenState, RedisRefused, ScriptMissing
from app.orders.answers import PlaceCode, Placed, Refused, Replay
from app.orders.stream import BATCH_ORDERS_MAX, PlacementRequest, place_orders, place_orders_script
from app.storage.script_connection import ScriptConnection
from tests.lua.bucket_on_valkey import (
    EPOCH,
    INCARNATION,
    BucketOnValkey,
    an_order,
    fingerprint,
    key_hash,
    orders_of_others,
    pairs,
    table,
    told,
)

STORY: Final = """
# remaining 4, limit 2, at most 4 orders unflushed
# key content shopper quantity -> code          detail
  k1  a       ann     1        -> PLACED        0
  k1  a       ann     1        -> REPLAY        0
  k1  b       ann     1        -> KEY_MISMATCH  0
  k2  a       ann     2        -> OVER_LIMIT    1
  k3  a       ann     1        -> PLACED        1
  k4  a       ann     1        -> OVER_LIMIT    0
  k5  a       bob     3        -> OVER_LIMIT    2
  k6  a       bob     1        -> PLACED        2
  k7  a       cat     2        -> SOLD_OUT      1     # two are asked, one is left
  k7  a       cat     1        -> PLACED        3     # a refusal is not remembered
  k8  a       dan     1        -> SOLD_OUT      0     # final, though the backlog is full too
  k6  a       bob     1        -> REPLAY        2     # a winner's retry hears no "sold out"
"""

# Each situation alone gives its code; with a later one it still gives its own.
SITUATIONS: Final = {
    "STALE": {"fenced": 1},
    "REPLAY": {},
    "KEY_MISMATCH": {},
    "NOT_OPEN": {"opens_at_ms": 9_999_999_999_999},
    "ENDED": {"closes_at_ms": 1},
    "PAUSED": {"gate": "paused"},
    "OVER_LIMIT": {"limit": 0},
    "SOLD_OUT": {"remaining": 0},
    "BACKLOG_FULL": {"backlog_max": 0},
    "PLACED": {},
}
# No order meets both: its key has been used with the same content or with another.
EXCLUSIVE: Final = ("REPLAY", "KEY_MISMATCH")
SITUATION_PAIRS: Final = [pair for pair in pairs(list(SITUATIONS)) if pair != EXCLUSIVE]

STALE_STATES: Final = """
  fenced          1
  fenced          yes
  incarnation     fedcba9876543210
  gate            shut
  gate            ajar
  lease_until_ms  0
  remaining       nan
  remaining       inf
  limit           0x10
  limit           1e9
  limit           1.5
  orders_placed   -
  backlog_max     12345678901234567
"""

BORDERS: Final = """
# field           ms from now -> code
  opens_at_ms     1           -> NOT_OPEN
  opens_at_ms     0           -> PLACED
  closes_at_ms    1           -> PLACED
  closes_at_ms    0           -> ENDED
  lease_until_ms  0           -> STALE
  lease_until_ms  1           -> PLACED
  lease_until_ms  5000        -> PLACED
  lease_until_ms  5001        -> STALE
"""

GATES: Final = """
# gate    opens   closes -> code
  open    before  after  -> PLACED
  paused  before  after  -> PAUSED
  closed  before  after  -> ENDED
  closed  after   after  -> ENDED      # closed before it opened: it will not open
  paused  after   after  -> NOT_OPEN
  paused  before  before -> ENDED
"""

# Sets a field relative to the server's clock; TIME stands still inside one MULTI/EXEC.
SET_FROM_NOW: Final = """
local clock = redis.call("TIME")
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call("HSET", KEYS[1], ARGV[1], now_ms + ARGV[2])
return now_ms
"""

STATE_FIELDS: Final = (
    "remaining",
    "limit",
    "opens_at_ms",
    "closes_at_ms",
    "gate",
    "fenced",
    "lease_until_ms",
    "incarnation",
    "orders_placed",
    "units_placed",
    "orders_flushed",
    "backlog_max",
)


def story() -> tuple[list[PlacementRequest], list[tuple[str, int]]]:
    rows = table(STORY)
    orders = [
        an_order(key, shopper, int(units), content) for key, content, shopper, units, *_ in rows
    ]
    return orders, [(code, int(detail)) for *_, code, detail in rows]


async def test_orders_placed_one_by_one(bucket: BucketOnValkey) -> None:
    await bucket.change(remaining=4, backlog_max=4)
    orders, answers = story()
    assert [told((await bucket.place(order))[0]) for order in orders] == answers


async def test_later_orders_of_a_batch_see_the_earlier_ones(bucket: BucketOnValkey) -> None:
    await bucket.change(remaining=4, backlog_max=4)
    orders, answers = story()
    assert [told(answer) for answer in await bucket.place(*orders)] == answers
    (entry,) = await bucket.entries()
    assert [order.shopper for order in entry.orders] == ["ann", "ann", "bob", "cat"]
    assert await bucket.held() == {"ann": 2, "bob": 1, "cat": 1}
    assert await bucket.numbers("remaining", "orders_placed", "units_placed") == [0, 4, 4]


@pytest.mark.parametrize(("first", "second"), SITUATION_PAIRS)
async def test_the_earlier_check_wins(bucket: BucketOnValkey, first: str, second: str) -> None:
    content = "a"
    if {first, second} & {"REPLAY", "KEY_MISMATCH"}:
        await bucket.place(an_order())
        content = "b" if "KEY_MISMATCH" in {first, second} else "a"
    if fields := SITUATIONS[first] | SITUATIONS[second]:
        await bucket.change(**fields)
    (answer,) = await bucket.place(an_order(content=content))
    assert told(answer)[0] == first


async def test_a_full_backlog_is_said_after_everything_final(bucket: BucketOnValkey) -> None:
    await bucket.change(backlog_max=1)
    answers = await bucket.place(an_order("k1"), an_order("k2", "bob"), an_order("k3", "bob", 3))
    assert [told(answer) for answer in answers] == [
        ("PLACED", 0),
        ("BACKLOG_FULL", 0),
        ("OVER_LIMIT", 2),
    ]
    await bucket.change(orders_flushed=1)
    assert await bucket.place(an_order("k2", "bob")) == [Placed(1)]


@pytest.mark.parametrize(("field", "value"), table(STALE_STATES))
async def test_every_order_is_stale(bucket: BucketOnValkey, field: str, value: str) -> None:
    await bucket.place(an_order())
    await bucket.change(**{field: value})
    before = await bucket.everything()
    answers = await bucket.place(an_order(), an_order("k2", "bob"))
    assert answers == [Refused(PlaceCode.STALE)] * 2
    assert await bucket.everything() == before


@pytest.mark.parametrize("field", STATE_FIELDS)
async def test_a_missing_field_is_stale(bucket: BucketOnValkey, field: str) -> None:
    await bucket.redis.hdel(bucket.keys.state, field)
    assert await bucket.place(an_order()) == [Refused(PlaceCode.STALE)]


async def test_missing_keys_are_stale(bucket: BucketOnValkey) -> None:
    await bucket.redis.delete(bucket.keys.state)
    assert await bucket.place(an_order()) == [Refused(PlaceCode.STALE)]
    assert await bucket.redis.exists(*bucket.keys.all) == 0


@pytest.mark.parametrize(("field", "offset_ms", "code"), table(BORDERS))
async def test_borders_hold_to_the_millisecond(
    bucket: BucketOnValkey, field: str, offset_ms: str, code: str
) -> None:
    batch = msgpack.packb((1, [an_order()]), use_bin_type=False)
    async with bucket.redis.pipeline(transaction=True) as act:
        act.eval(SET_FROM_NOW, 1, bucket.keys.state, field, offset_ms)
        act.evalsha(bucket.script.sha, len(bucket.names), *bucket.names, batch)
        set_at_ms, (now_ms, _, ((number, *_),)) = await act.execute()
    assert now_ms == set_at_ms
    assert PlaceCode(number).name == code


@pytest.mark.parametrize(("gate", "opens", "closes", "code"), table(GATES))
async def test_the_gate_and_the_window(
    bucket: BucketOnValkey, gate: str, opens: str, closes: str, code: str
) -> None:
    at_ms = {"before": 1, "after": 9_999_999_999_999}
    await bucket.change(gate=gate, opens_at_ms=at_ms[opens], closes_at_ms=at_ms[closes])
    assert told((await bucket.place(an_order()))[0])[0] == code


async def test_a_placed_order_is_written_everywhere(bucket: BucketOnValkey) -> None:
    await bucket.place(an_order("k0", "zoe", 2))
    order = an_order("k1", "ann", 2)._replace(reference="cart 9", group="")
    await bucket.place(order)
    _, entry = await bucket.entries()
    assert entry.orders == (order,)
    assert entry.orders_placed_before == 1
    assert entry.placed_at_ms == entry.entry_id.ms
    assert await bucket.remembered("k1") == RememberedOrder(
        EPOCH, 1, entry.placed_at_ms, fingerprint("a")[:REMEMBERED_FINGERPRINT_BYTES]
    )
    assert await bucket.held() == {"zoe": 2, "ann": 2}
    assert await bucket.numbers("remaining", "orders_placed", "units_placed") == [6, 2, 4]


async def test_a_replay_tells_the_order_as_it_was_first_told(bucket: BucketOnValkey) -> None:
    await bucket.place(an_order())
    (entry,) = await bucket.entries()
    assert await bucket.place(an_order()) == [Replay(0, EPOCH, entry.placed_at_ms)]


async def test_a_rebuilt_key_answers_with_its_old_epoch(bucket: BucketOnValkey) -> None:
    largest = RememberedOrder(2**12 - 1, 2**34 - 1, 2**41, fingerprint("a"))
    await bucket.redis.hset(bucket.keys.replays, key_hash("k1"), largest.pack())
    assert await bucket.place(an_order()) == [Replay(2**34 - 1, 2**12 - 1, 2**41)]


async def test_a_batch_that_is_refused_whole_writes_nothing(bucket: BucketOnValkey) -> None:
    await bucket.place(an_order())
    await bucket.change(remaining=0)
    before = await bucket.redis.info("persistence")
    answers = await bucket.place(an_order(), an_order("k2", "bob"), an_order("k3", "ann", 2))
    after = await bucket.redis.info("persistence")
    assert [told(answer)[0] for answer in answers] == ["REPLAY", "SOLD_OUT", "OVER_LIMIT"]
    changes = "rdb_changes_since_last_save"
    assert after[changes] == before[changes]
    assert after["aof_current_size"] == before["aof_current_size"]


async def test_the_keys_expire_together(bucket: BucketOnValkey) -> None:
    created = (bucket.keys.shoppers, bucket.keys.replays, bucket.keys.orders)
    await bucket.place(an_order())
    expires_at_ms = await bucket.redis.pexpiretime(bucket.keys.state)
    assert expires_at_ms > 0
    assert [await bucket.redis.pexpiretime(key) for key in created] == [expires_at_ms] * 3
    await bucket.redis.delete(*created)
    await bucket.place(an_order("k2"))
    assert [await bucket.redis.pexpiretime(key) for key in created] == [expires_at_ms] * 3


async def test_the_largest_batch_is_placed(bucket: BucketOnValkey) -> None:
    await bucket.change(remaining=2_000, backlog_max=2_000)
    orders = orders_of_others(BATCH_ORDERS_MAX)
    assert await bucket.place(*orders) == [Placed(seq) for seq in range(BATCH_ORDERS_MAX)]
    (entry,) = await bucket.entries()
    assert entry.orders == tuple(orders)


async def test_no_entry_is_pushed_out_by_later_ones(bucket: BucketOnValkey) -> None:
    orders = orders_of_others(250)
    await bucket.change(remaining=250)
    for order in orders:
        await bucket.place(order)
    assert [entry.orders for entry in await bucket.entries()] == [(order,) for order in orders]
    assert "MAXLEN" not in bucket.script.text


async def test_hashes_of_any_bytes_survive(bucket: BucketOnValkey) -> None:
    await bucket.change(remaining=256, limit=1)
    orders = [
        PlacementRequest(bytes([i]) * 16, bytes([255 - i]) * 8, f"顾客{i}", 1, "", "")
        for i in range(256)
    ]
    assert await bucket.place(*orders) == [Placed(seq) for seq in range(256)]
    (entry,) = await bucket.entries()
    assert entry.orders == tuple(orders)
    assert all(isinstance(answer, Replay) for answer in await bucket.place(*orders))


GOOD: Final = [key_hash("k1"), fingerprint("a"), "ann", 1, "", ""]
MALFORMED: Final = {
    "not msgpack": b"\xc1",
    "nothing": b"",
    "no array": msgpack.packb(1),
    "another version": msgpack.packb([2, [GOOD]], use_bin_type=False),
    "no orders": msgpack.packb([1, []], use_bin_type=False),
    "too many orders": msgpack.packb([1, [GOOD] * (BATCH_ORDERS_MAX + 1)], use_bin_type=False),
    "an order that is no array": msgpack.packb([1, [1]], use_bin_type=False),
    "five fields": msgpack.packb([1, [GOOD, GOOD[:5]]], use_bin_type=False),
    "seven fields": msgpack.packb([1, [[*GOOD, 1]]], use_bin_type=False),
} | {
    f"field {position + 1} is {value!r}": msgpack.packb(
        [1, [GOOD, [*GOOD[:position], value, *GOOD[position + 1 :]]]], use_bin_type=False
    )
    for position, value in (
        *((0, value) for value in ("short", 1, None)),
        *((1, value) for value in ("short", 1, None)),
        *((2, value) for value in ("", 7, None, ["ann"])),
        *((3, value) for value in (0, -1, 1.5, 1_000_001, "1", None, float("nan"), float("inf"))),
        *((4, value) for value in (7, None)),
        *((5, value) for value in (7, None)),
    )
}


@pytest.mark.parametrize("batch", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_batch_fails_before_any_write(
    bucket: BucketOnValkey, connection: ScriptConnection, batch: bytes
) -> None:
    before = await bucket.everything()
    with pytest.raises(BrokenState):
        await connection.evalsha(bucket.script.sha, bucket.names, [batch], timeout_ms=5_000)
    assert await bucket.everything() == before


IMPOSSIBLE: Final = """
  shoppers  hash  ann
  replays   hash  k1
  shoppers  text  -
  replays   text  -
  orders    text  -
"""


@pytest.mark.parametrize(("name", "kind", "field"), table(IMPOSSIBLE))
async def test_a_state_that_cannot_be_fails_before_any_write(
    bucket: BucketOnValkey, name: str, kind: str, field: str
) -> None:
    key = bucket.keys.named(name)
    if kind == "text":
        await bucket.redis.set(key, "x")
    else:
        await bucket.redis.hset(key, key_hash("k1") if field == "k1" else field, "x")
    before = await bucket.everything()
    with pytest.raises(BrokenState):
        await bucket.place(an_order())
    assert await bucket.everything() == before


async def test_a_full_server_refuses_before_any_write(bucket: BucketOnValkey) -> None:
    before = await bucket.everything()
    await bucket.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisRefused) as refused:
            await bucket.place(an_order())
    finally:
        await bucket.redis.config_set("maxmemory", 0)
    assert refused.value.fields == {"reason": "OOM"}
    assert await bucket.everything() == before


async def test_another_incarnation_has_another_script(
    bucket: BucketOnValkey, connection: ScriptConnection
) -> None:
    other = place_orders_script(INCARNATION[::-1])
    with pytest.raises(ScriptMissing):
        await place_orders(connection, other, bucket.names, [an_order()], timeout_ms=5_000)


async def test_one_unit_and_many_shoppers_at_once(bucket: BucketOnValkey) -> None:
    await bucket.change(remaining=1)
    call = ("EVALSHA", bucket.script.sha, len(bucket.names), *bucket.names)
    batches = [msgpack.packb((1, [order]), use_bin_type=False) for order in orders_of_others(16)]
    async with asyncio.TaskGroup() as clicks:
        replies = [
            clicks.create_task(bucket.redis.execute_command(*call, batch)) for batch in batches
        ]
    codes = [reply.result()[2][0][0] for reply in replies]
    assert codes.count(PlaceCode.PLACED) == 1
    assert codes.count(PlaceCode.SOLD_OUT) == 15
