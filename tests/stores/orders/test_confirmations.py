"""Who waits for a row hears of it when it is committed, and never of anything else."""

import asyncio
import time

import pytest

from app.orders.confirmations import Confirmations
from app.orders.order import Order
from app.storage.redis import open_redis
from tests.waiting import eventually


@pytest.fixture
async def waiting(shop):
    """The waiting room of an api process, with the api's rights."""
    redis = open_redis(shop.api_url, client_name="test-listen")
    opened = Confirmations(redis, shop.shards, shop.deployment)
    yield opened
    await opened.close()
    await redis.aclose()


async def test_a_waiting_shopper_is_woken_by_the_flush(shop, waiting):
    await shop.open()
    answer = await shop.click("ann")
    asked = asyncio.create_task(waiting.wait_for(answer.key, answer.entry_id, 60))
    await asyncio.sleep(0)
    assert not asked.done()

    async with shop.flushing():
        order = await asyncio.wait_for(asked, 20)
    assert isinstance(order, Order)
    assert order.key == answer.key


async def test_nobody_who_flushes_is_no_row_after_the_wait(shop, waiting):
    await shop.open()
    answer = await shop.click("ann")
    began = time.monotonic()

    assert await waiting.wait_for(answer.key, answer.entry_id, 0.2) is None
    assert time.monotonic() - began >= 0.2


async def test_a_crowd_waits_and_everybody_gets_the_own_row(shop, waiting):
    await shop.open(stock=60, buckets=2)
    names = [f"s{i}" for i in range(40)]
    answers = await asyncio.gather(*map(shop.click, names))
    async with shop.flushing():
        orders = await asyncio.gather(
            *(waiting.wait_for(answer.key, answer.entry_id, 60) for answer in answers)
        )
    assert [order.shopper for order in orders] == names


async def test_a_row_that_was_there_before_is_given_at_once(shop, waiting):
    """A replay names no entry; its row may be of an older epoch."""
    await shop.open()
    await shop.buy("ann", key="k1")
    await shop.flush()
    replay = await shop.click("ann", key="k1")

    assert replay.is_replay
    async with asyncio.timeout(20):
        order = await waiting.wait_for(replay.key, replay.entry_id, 600)
    assert order.key == replay.key


async def test_a_replay_whose_row_is_on_its_way_is_waited_for(shop, waiting):
    await shop.open()
    await shop.buy("ann", key="k1")
    replay = await shop.click("ann", key="k1")
    asked = asyncio.create_task(waiting.wait_for(replay.key, replay.entry_id, 60))
    async with shop.flushing():
        order = await asyncio.wait_for(asked, 20)

    assert order.key == replay.key


async def test_a_redis_that_is_away_costs_the_wait_and_not_the_row(shop):
    await shop.open()
    answer = await shop.click("ann")
    await shop.flush()
    away = open_redis("redis://127.0.0.1:1", client_name="test")
    deaf = Confirmations(away, shop.shards, shop.deployment)

    async with asyncio.timeout(20):
        order = await deaf.wait_for(answer.key, answer.entry_id, 0.3)
    assert order.key == answer.key
    await deaf.close()
    await away.aclose()


async def test_a_listener_whose_connection_was_ended_listens_again(shop, waiting):
    await shop.open()
    first = await shop.click("ann")
    async with shop.flushing():
        assert await waiting.wait_for(first.key, first.entry_id, 20)
        await shop.redis.client_kill_filter(_type="pubsub")

        async def woken_again():
            answer = await shop.click("bob", key="k-bob")
            began = time.monotonic()
            order = await waiting.wait_for(answer.key, answer.entry_id, 5)
            return order is not None and time.monotonic() - began < 5

        assert await eventually(woken_again)


async def test_who_stops_waiting_leaves_nothing_behind(shop, waiting):
    await shop.open()
    answer = await shop.click("ann")
    asked = asyncio.create_task(waiting.wait_for(answer.key, answer.entry_id, 60))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await shop.flush()

    other = await shop.click("ann", key="again")
    async with shop.flushing():
        assert await waiting.wait_for(other.key, other.entry_id, 20)
