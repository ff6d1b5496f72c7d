"""The flusher with a real stream: what is flushed, who is told, what is trimmed."""

import asyncio
import time
from dataclasses import replace

import msgpack
import pytest

from app.kernel.errors import BrokenState, RedisUnavailable, ShardUnavailable
from app.orders.flusher import Flusher, read_batch
from app.orders.stream import EntryId, RawEntry, StreamEntry
from app.storage.duties import Duties
from app.storage.lua import load_scripts
from app.storage.redis import open_redis
from app.storage.shards import DatabaseSettings, Shard
from tests.real_stores import session
from tests.stores.orders.bucket_rows import wish
from tests.stores.orders.running_sale import FLUSH_SETTINGS
from tests.waiting import eventually

IMPATIENT = DatabaseSettings(statement_timeout_ms=300, lock_timeout_ms=100)


@pytest.fixture
async def sold(shop):
    """Three orders in the stream."""
    await shop.open()
    for shopper in ("ann", "bob", "cat"):
        await shop.buy(shopper)
    return shop


async def entries(shop):
    return await shop.redis.xlen(shop.keys().orders)


async def add_entry(shop, *packed):
    """Write to the stream as a careless administrator would."""
    raw = msgpack.packb([1, *packed], use_bin_type=False)
    await shop.redis.xadd(shop.keys().orders, {"b": raw})


async def test_what_was_placed_becomes_rows_and_leaves_the_stream(sold):
    assert await entries(sold) == 3
    assert await sold.flush() == 3

    rows = await sold.rows("SELECT shopper FROM orders ORDER BY seq")
    assert [row["shopper"] for row in rows] == ["ann", "bob", "cat"]
    assert await entries(sold) == 0
    assert (await sold.state()).orders_flushed == 3
    assert await sold.audited() == ""


async def test_while_orders_come_they_gather_and_the_first_does_not_wait(sold):
    """A transaction for each order would cost the worker more than all the rest."""
    patient = replace(FLUSH_SETTINGS, gather_ms=400, trim_ms=1_000)
    flusher = Flusher(
        sold.shard(),
        sold.duties[sold.shard().index],
        sold.redis,
        sold.deployment,
        patient,
        sold.notes,
    )
    began = time.monotonic()
    assert await flusher.flush_once() == 3
    await sold.buy("dan")
    await sold.buy("eve")
    assert await flusher.flush_once() == 2
    assert time.monotonic() - began >= patient.gather_ms / 1000


async def test_trims_are_put_off_while_orders_come_and_made_up_for_when_none_does(sold):
    seldom = replace(FLUSH_SETTINGS, trim_ms=1_000, refresh_ms=60_000)
    flusher = Flusher(
        sold.shard(),
        sold.duties[sold.shard().index],
        sold.redis,
        sold.deployment,
        seldom,
        sold.notes,
    )
    assert await flusher.flush_once() == 3
    assert await entries(sold) == 0
    await sold.buy("dan")
    assert await flusher.flush_once() == 1
    assert (await entries(sold), (await sold.state()).orders_flushed) == (1, 3)

    assert await flusher.flush_once() == 0
    assert (await entries(sold), (await sold.state()).orders_flushed) == (0, 4)


async def test_nothing_to_flush_is_nothing_done(sold):
    await sold.flush()
    assert await sold.flush() == 0
    assert len(sold.notes.reports) == 1


async def test_a_sale_that_does_not_sell_yet_is_not_flushed(shop):
    await shop.publish()
    await shop.grant()

    assert await shop.flush() == 0


async def test_after_the_commit_the_bucket_and_the_place_are_told(sold):
    pubsub = sold.redis.pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(sold.keys().channel)
    await eventually(lambda: sold.redis.publish(sold.keys().channel, "0 0-0"))
    await sold.flush()
    (row,) = await sold.rows("SELECT stream_ms, stream_seq FROM bucket_leases")

    async def next_message():
        message = await pubsub.get_message(timeout=0.05)
        return message and message["data"] != b"0 0-0" and message["data"]

    assert await eventually(next_message) == f"1 {row['stream_ms']}-{row['stream_seq']}".encode()
    await pubsub.aclose()


async def test_a_bucket_has_one_flusher_and_the_other_takes_over(sold):
    other = sold.new_flusher(sold.shard(), sold.another_process(sold.shard()))
    assert await sold.flush() == 3
    await sold.buy("dan")
    assert await other.flush_once() == 0

    await sold.duties[sold.shard().index].close()
    assert await other.flush_once() == 1


async def test_who_takes_over_after_a_crash_between_commit_and_trim_trims(sold):
    """The rows stand, the stream is full, and nothing more is placed."""
    raw = await sold.redis.xrange(sold.keys().orders)
    await sold.flush()
    await sold.redis.hset(sold.keys().state, "orders_flushed", 0)
    pipeline = sold.redis.pipeline()
    pipeline.delete(sold.keys().orders)
    for entry_id, fields in raw:
        pipeline.xadd(sold.keys().orders, fields, id=entry_id)
    await pipeline.execute()

    assert await sold.new_flusher(sold.shard()).flush_once() == 0
    assert await entries(sold) == 0
    assert (await sold.state()).orders_flushed == 3
    assert await sold.audited() == ""


async def test_a_trim_that_failed_is_made_up_for_even_if_nothing_more_is_placed(sold):
    """A full backlog takes no order, so no flush would come to lower it."""
    flusher = sold.new_flusher(sold.shard())
    await sold.redis.script_flush()
    assert await flusher.flush_once() == 3
    assert len(sold.notes.trims_failed) == 1
    assert await entries(sold) == 3

    await load_scripts(sold.redis, (await sold.lease()).incarnation)
    await flusher.flush_once()
    assert await entries(sold) == 0
    assert (await sold.state()).orders_flushed == 3


async def test_a_redis_that_is_away_loses_nothing(sold):
    away = open_redis("redis://127.0.0.1:1", client_name="test")
    flusher = Flusher(
        sold.shard(),
        sold.duties[sold.shard().index],
        away,
        sold.deployment,
        FLUSH_SETTINGS,
        sold.notes,
    )
    with pytest.raises(RedisUnavailable):
        await flusher.flush_once()
    await away.aclose()

    assert await sold.flush() == 3
    assert await sold.audited() == ""


async def test_a_shard_that_is_frozen_loses_nothing(sold):
    await sold.duties[sold.shard().index].close()
    shard = Shard(sold.shard().index, sold.shard().url, IMPATIENT)
    duties = Duties(shard)
    flusher = sold.new_flusher(shard, duties)
    async with session(shard.url) as other, other.transaction():
        await other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ShardUnavailable):
            await flusher.flush_once()
        assert await entries(sold) == 3

    assert await flusher.flush_once() == 3
    assert await sold.audited() == ""
    await duties.close()
    await shard.close()


async def test_buckets_of_several_shards_are_flushed_side_by_side(shop):
    await shop.open(buckets=4, stock=400)
    keys = {await shop.buy(f"shopper-{i}") for i in range(60)}
    assert await shop.flush() == 60

    found = {
        tuple(row.values())
        for bucket in range(4)
        for row in await shop.rows("SELECT sale, bucket, epoch, seq FROM orders", bucket=bucket)
    }
    assert found == keys
    assert {key.bucket for key in keys} == {0, 1, 2, 3}
    assert await shop.audited() == ""


async def test_a_gap_stops_the_bucket_and_the_next_epoch_sells_again(sold):
    await add_entry(sold, 9, await sold.server.now_ms(), [list(wish("eve"))])
    assert await sold.flush() == 3
    assert (await sold.lease()).recover_reason == "gap"

    opened = await sold.recover(reason="gap")
    assert (opened.epoch, opened.recover_reason) == (2, None)
    await sold.buy("dan")
    await sold.flush()
    rows = await sold.rows("SELECT shopper FROM orders ORDER BY epoch, seq")
    assert [row["shopper"] for row in rows] == ["ann", "bob", "cat", "eve", "dan"]
    assert await sold.audited() == ""


async def test_an_unreadable_entry_stops_the_bucket_and_becomes_a_letter(sold):
    await sold.redis.xadd(sold.keys().orders, {"b": b"junk"})
    assert await sold.flush() == 3
    assert (await sold.lease()).recover_reason == "unreadable_entry"

    assert (await sold.recover(reason="unreadable_entry")).epoch == 2
    letters = await sold.rows("SELECT reason, raw, seq FROM dead_letters")
    assert [tuple(letter.values()) for letter in letters] == [("unreadable", b"junk", None)]
    assert await sold.audited() == ""


async def test_poison_gives_its_units_back_and_forgets_its_key(sold):
    await sold.click("eve", 2, key="k-eve", reference="a\0b")
    assert await sold.flush() == 4
    assert await sold.move() == 1

    assert await sold.remaining() == 7
    assert await sold.audited() == ""
    key = await sold.buy("eve", 2, key="k-eve")
    assert key.seq == 4


async def test_a_return_that_cannot_be_applied_gives_the_bucket_a_new_epoch(sold):
    """A shopper whose name Postgres cannot hold: the return names somebody else."""
    await sold.click("e\0e", 2)
    await sold.buy("dan")
    assert await sold.flush() == 5
    with pytest.raises(BrokenState):
        await sold.move()
    assert (await sold.lease()).recover_reason == "broken_move"

    await sold.recover(reason="broken_move")
    assert await sold.remaining() == 6
    assert await sold.at_rest() == ""


@pytest.mark.parametrize(
    ("packed", "is_read"),
    [
        ([1, 0, 1, [list(wish("ann"))]], True),
        ([1, 0, 2**47 + 1, [list(wish("ann"))]], False),  # no calendar has that instant
        ([2, 0, 1, [list(wish("ann"))]], False),
        ([1, 0, 1, []], False),
    ],
)
def test_what_nobody_can_read_stays_raw(packed, is_read):
    raw = RawEntry(EntryId(1, 0), {b"b": msgpack.packb(packed, use_bin_type=False)})

    (found,) = read_batch([raw])
    assert isinstance(found, StreamEntry) is is_read
    assert (found is raw) is not is_read


async def test_hundreds_of_orders_placed_while_the_flush_runs_are_all_there_once(shop):
    await shop.open(stock=400)
    async with shop.flushing():
        keys = await asyncio.gather(*(shop.buy(f"s{i}") for i in range(300)))
    assert len(set(keys)) == 300
    await shop.flush()
    assert await shop.value("SELECT count(*) FROM orders") == 300
    assert await shop.audited() == ""
