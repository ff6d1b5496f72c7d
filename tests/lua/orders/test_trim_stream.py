"""trim_stream, and reading what it leaves."""

from app.inventory.bucket import fence_bucket
from app.orders.answers import Placed
from app.orders.stream import STREAM_START, EntryId, decode_entry, read_entries, trim_stream
from tests.lua.bucket_on_valkey import BucketOnValkey, an_order


async def place_three(bucket: BucketOnValkey) -> list[EntryId]:
    for shopper in ("ann", "bob", "cat"):
        await bucket.place(an_order(key=shopper, shopper=shopper))
    return [entry.entry_id for entry in await bucket.entries()]


async def test_entries_up_to_the_offset_go_and_the_backlog_falls(bucket: BucketOnValkey) -> None:
    _, second, third = await place_three(bucket)
    assert await trim_stream(bucket.redis, bucket.keys, second, 2)
    assert [entry.entry_id for entry in await bucket.entries()] == [third]
    assert await bucket.numbers("orders_flushed", "orders_placed") == [2, 3]


async def test_a_repeated_or_older_call_changes_nothing(bucket: BucketOnValkey) -> None:
    first, second, third = await place_three(bucket)
    await trim_stream(bucket.redis, bucket.keys, second, 2)
    before = await bucket.everything()
    for offset, flushed in ((second, 2), (first, 1), (STREAM_START, 0)):
        assert await trim_stream(bucket.redis, bucket.keys, offset, flushed)
        assert await bucket.everything() == before
    assert third > second > first


async def test_an_emptied_stream_goes_on_where_it_was(bucket: BucketOnValkey) -> None:
    *_, third = await place_three(bucket)
    await trim_stream(bucket.redis, bucket.keys, third, 3)
    assert await bucket.entries() == []
    assert await bucket.place(an_order("k9", "dan")) == [Placed(3)]
    (entry,) = await bucket.entries()
    assert entry.entry_id > third
    assert entry.orders_placed_before == 3


async def test_a_fenced_bucket_is_trimmed(bucket: BucketOnValkey) -> None:
    *_, third = await place_three(bucket)
    await fence_bucket(bucket.redis, bucket.keys)
    assert await trim_stream(bucket.redis, bucket.keys, third, 3)
    assert await bucket.entries() == []


async def test_without_a_state_nothing_is_trimmed(bucket: BucketOnValkey) -> None:
    *_, third = await place_three(bucket)
    await bucket.redis.delete(bucket.keys.state)
    assert not await trim_stream(bucket.redis, bucket.keys, third, 3)
    assert len(await bucket.entries()) == 3


async def test_a_full_server_can_be_emptied(bucket: BucketOnValkey) -> None:
    *_, third = await place_three(bucket)
    await bucket.redis.config_set("maxmemory", 1)
    try:
        assert await trim_stream(bucket.redis, bucket.keys, third, 3)
    finally:
        await bucket.redis.config_set("maxmemory", 0)
    assert await bucket.entries() == []


async def test_entries_are_read_from_a_position(bucket: BucketOnValkey) -> None:
    first, second, third = await place_three(bucket)
    stream = bucket.keys.orders
    read = await read_entries(bucket.redis, {stream: first}, count=10)
    assert [entry.entry_id for entry in read[stream]] == [second, third]
    assert [decode_entry(*entry).orders[0].shopper for entry in read[stream]] == ["bob", "cat"]
    read = await read_entries(bucket.redis, {stream: STREAM_START}, count=1)
    assert [entry.entry_id for entry in read[stream]] == [first]


async def test_streams_without_news_are_left_out(bucket: BucketOnValkey) -> None:
    *_, third = await place_three(bucket)
    positions = {bucket.keys.orders: third, b"t-none:{1.0}:e1:orders": STREAM_START}
    assert await read_entries(bucket.redis, positions, count=10) == {}
    assert await read_entries(bucket.redis, positions, count=10, block_ms=1) == {}
