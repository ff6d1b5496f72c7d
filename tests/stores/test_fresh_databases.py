"""The tests' own ground: what is lent is as good as new."""

import asyncpg
import pytest

from tests.real_stores import session

INSERT_EVENT = """
INSERT INTO order_events (sale, bucket, epoch, seq, number, event, state, actor)
VALUES (1, 0, 0, 0, 1, 'placed', 'pending', 'test')"""


async def test_a_shard_that_is_lent_again_holds_nothing_of_the_last_test(stores):
    with stores.fresh_shards("t-one") as (url, _):
        async with session(url) as shard:
            await shard.execute(INSERT_EVENT)
            await shard.execute("SELECT nextval('sale_numbers'), nextval('sale_numbers')")
    with stores.fresh_shards("t-two") as (again, _):
        async with session(again) as shard:
            assert again == url
            assert await shard.fetchval("SELECT count(*) FROM order_events") == 0
            assert await shard.fetchval("SELECT nextval('sale_numbers')") == 1
            assert await shard.fetchval("SELECT deployment FROM shard_identity") == "t-two"
            assert await shard.fetchval("SELECT shards FROM shard_map") == 2


async def test_a_shard_whose_schema_was_changed_is_not_lent_again(stores):
    with stores.fresh_shards("t-one") as (url, _):
        async with session(url) as shard:
            await shard.execute("ALTER TABLE orders DROP CONSTRAINT orders_total")
    with stores.fresh_shards("t-two") as (other, _):
        assert other != url


async def test_a_session_that_was_left_open_does_not_hold_up_the_next_test(stores):
    with stores.fresh_shards("t-one") as (url, _):
        left_open = await asyncpg.connect(url)
        await left_open.execute("BEGIN")
        await left_open.execute(INSERT_EVENT)
    with stores.fresh_shards("t-two") as (again, _):
        async with session(again) as shard:
            assert await shard.fetchval("SELECT count(*) FROM order_events") == 0
    left_open.terminate()


async def test_history_can_still_only_be_added_to_in_a_lent_shard(stores):
    with stores.fresh_shards("t-one") as (url, _):
        async with session(url) as shard:
            await shard.execute(INSERT_EVENT)
            with pytest.raises(asyncpg.RestrictViolationError):
                await shard.execute("DELETE FROM order_events")
