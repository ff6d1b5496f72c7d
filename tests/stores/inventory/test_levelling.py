"""Units of a sale in several buckets follow its shoppers, and the last ones get sold."""

import itertools

import pytest

from app.inventory.levelling import Levelling
from app.orders.placement import bucket_of
from app.orders.selling import Accepted
from app.sales.sale import SaleEvent
from tests.stores.inventory.test_coordinator import frozen


@pytest.fixture
async def sale(shop):
    """Forty units in four buckets on two shards."""
    await shop.open(stock=40, buckets=4, limit_per_shopper=1)
    return shop


def levelling(shop):
    return Levelling(shop.shards.home(shop.sale.number), shop.shards, shop.redis, shop.deployment)


async def level(shop):
    """Let every worker do what a second of theirs would; say whether units were moved."""
    asked = await levelling(shop).level_once()
    await shop.flush()
    await shop.move()
    await shop.grant()
    await shop.move()
    return asked


async def remaining(shop):
    return [await shop.remaining(bucket) for bucket in range(4)]


def shoppers_of(bucket):
    names = (f"s{number}" for number in itertools.count())
    return (name for name in names if bucket_of(name, 4) == bucket)


async def buy_all(shop, shoppers):
    """Buy in one bucket until it has nothing; say how many were sold."""
    for sold in itertools.count():
        if not isinstance(await shop.click(next(shoppers)), Accepted):
            return sold
    raise AssertionError


async def test_while_every_bucket_sells_nothing_moves(sale):
    await sale.buy(next(shoppers_of(2)))
    assert await level(sale) == 0
    assert await sale.rows("SELECT 1 FROM bucket_moves WHERE kind = 'withdrawal'") == []


async def test_the_bucket_that_is_sold_out_gets_units_of_the_richest(sale):
    assert await buy_all(sale, shoppers_of(2)) == 10
    assert await level(sale) == 1

    assert await remaining(sale) == [5, 10, 5, 10]
    assert await sale.at_rest() == ""


async def test_shoppers_of_one_bucket_can_buy_all_but_the_others_last_units(sale):
    """A unit that is a bucket's last is left to its own shoppers, and they get it."""
    crowd, sold = shoppers_of(2), 0
    while True:
        sold += await buy_all(sale, crowd)
        if not await level(sale):
            break
    assert (sold, await remaining(sale)) == (37, [1, 1, 0, 1])
    for bucket in (0, 1, 3):
        assert await buy_all(sale, shoppers_of(bucket)) == 1
        assert await level(sale) == 0

    await sale.flush()
    assert await sale.at_rest() == ""
    assert sum([(await sale.lease(bucket)).reserved for bucket in range(4)]) == 40


async def test_nothing_is_begun_while_units_are_on_their_way(sale):
    await buy_all(sale, shoppers_of(2))
    assert await levelling(sale).level_once() == 1
    assert await levelling(sale).level_once() == 0  # asked
    await sale.move()
    assert await sale.pool() == 5
    assert await levelling(sale).level_once() == 0  # in the pool
    await sale.grant()
    assert await levelling(sale).level_once() == 0  # granted, and not in Redis yet
    await sale.move()
    assert await levelling(sale).level_once() == 0  # at rest: all sell
    assert await sale.at_rest() == ""


@pytest.mark.parametrize("event", [SaleEvent.PAUSE, SaleEvent.CLOSE])
async def test_a_sale_that_does_not_sell_is_left_alone(sale, event):
    await buy_all(sale, shoppers_of(2))
    await sale.change(event)
    assert await levelling(sale).level_once() == 0


async def test_restocked_units_go_to_the_poorest(sale):
    await buy_all(sale, shoppers_of(2))
    await sale.restock(12)
    await sale.grant()
    await sale.move()

    assert await remaining(sale) == [11, 10, 11, 10]
    assert await sale.at_rest() == ""


async def test_a_bucket_that_cannot_be_seen_neither_gives_nor_gets(sale):
    """Its keys are gone: what it has is not known until its next epoch."""
    await buy_all(sale, shoppers_of(2))
    await sale.redis.delete(sale.keys(0).state)
    assert await levelling(sale).level_once() == 1
    (asked,) = await sale.rows(
        "SELECT bucket FROM bucket_moves WHERE kind = 'withdrawal'", bucket=1
    )
    assert asked["bucket"] == 1


async def test_a_shard_that_is_away_leaves_the_rest_to_be_levelled(sale):
    await buy_all(sale, shoppers_of(2))
    async with frozen(sale.shard(1), "bucket_leases"):
        assert await levelling(sale).level_once() == 1
    (asked,) = await sale.rows("SELECT bucket FROM bucket_moves WHERE kind = 'withdrawal'")
    assert asked["bucket"] == 0
