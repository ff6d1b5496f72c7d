"""The depth of the queues, and the age of what waits in them."""

import msgspec
import pytest

from app.inventory.queues import read_all_queues
from app.storage.redis import open_redis
from app.storage.shards import DatabaseSettings, LockPurpose, Shards, bucket_subject
from tests.stores.audited_sale import SALE, AuditedSale


@pytest.fixture
async def sale(shards, redis, deployment):
    sale = AuditedSale(shards, redis, deployment)
    await sale.write()
    return sale


async def read(sale):
    return await read_all_queues(sale.shards, sale.redis, sale.deployment)


async def test_a_queue_that_is_flushed_is_empty(sale):
    queues = await read(sale)
    first, second = queues.queues
    assert (first.sale, first.bucket, first.shard, first.epoch) == ("spring", 0, 1, 2)
    assert (first.entries, first.orders, first.oldest_age_ms) == (0, 0, 0)
    assert (first.offset, first.state, first.owner) == ("1000-0", "open", None)
    assert (second.bucket, second.shard) == (1, 0)
    assert msgspec.to_builtins(queues.totals) == {
        "entries": 0,
        "orders": 0,
        "oldest_age_ms": 0,
        "without_owner": 2,
        "dead_letters": {"order": 1},
    }


async def test_what_waits_has_a_depth_and_an_age(sale):
    seconds, _ = await sale.redis.time()
    await sale.add_entry(f"{(seconds - 60) * 1000}-0", b"waits")
    await sale.add_entry(f"{seconds * 1000}-0", b"waits too")
    await sale.set_state(orders_placed=12)
    queues = await read(sale)
    assert (queues.queues[0].entries, queues.queues[0].orders) == (2, 7)
    assert 59_000 < queues.queues[0].oldest_age_ms < 70_000
    assert queues.totals.orders == 7
    assert queues.totals.oldest_age_ms == queues.queues[0].oldest_age_ms


async def test_what_is_flushed_and_not_yet_trimmed_does_not_wait(sale):
    await sale.add_entry("2000-0", b"flushed")
    await sale.execute("UPDATE bucket_leases SET stream_ms = 2000")
    queues = await read(sale)
    assert (queues.queues[0].entries, queues.queues[0].oldest_age_ms) == (1, 0)


async def test_who_holds_the_flush_lock_is_the_owner(sale):
    async with await sale.shard.lock_session() as session:
        await session.try_lock(LockPurpose.FLUSH, bucket_subject(SALE, 0))
        queues = await read(sale)
        assert queues.queues[0].owner.startswith("doorbuster lock (backend ")
        assert queues.totals.without_owner == 1


async def test_a_closed_bucket_has_no_queue(sale):
    await sale.execute("UPDATE bucket_leases SET state = 'closed'")
    assert [queue.bucket for queue in (await read(sale)).queues] == [1]


async def test_a_silent_redis_leaves_the_lease_rows(sale):
    nobody = open_redis("redis://127.0.0.1:1", client_name="test")
    queues = await read_all_queues(sale.shards, nobody, sale.deployment)
    await nobody.aclose()
    assert not queues.redis_answers
    assert [(queue.entries, queue.orders) for queue in queues.queues] == [(None, None)] * 2


async def test_a_silent_shard_hides_only_its_own_queues(sale, shard_urls):
    shards = Shards([shard_urls[0], "postgresql://127.0.0.1:1/x"], DatabaseSettings())
    queues = await read_all_queues(shards, sale.redis, sale.deployment)
    await shards.close()
    assert queues.shards_away == [1]
    assert [queue.shard for queue in queues.queues] == [0]
