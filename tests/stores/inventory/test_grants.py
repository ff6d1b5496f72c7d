"""Units on their way between the pool and the buckets: never lost, never there twice."""

import asyncio

import pytest

from app.inventory.grant_store import (
    apply_grant,
    credit_pool,
    issue_grant,
    issued_grants,
    pools_to_grant,
    settle_grant,
)
from app.inventory.grants import Grants
from app.inventory.lease_store import insert_leases
from app.kernel.errors import ShardUnavailable
from app.sales.sale import SaleEvent
from app.sales.store import mark_leased, sales_to_lease
from app.storage.shards import DatabaseSettings, Shards
from tests.real_stores import session


@pytest.fixture
async def leased(shop):
    """A published sale of 100 units with the lease rows of four buckets on two shards."""
    await shop.publish(stock=100, buckets=4)
    await lease_all(shop)
    return shop


def home(shop):
    return shop.shards.home(shop.sale.number)


async def lease_all(shop):
    for bucket in range(shop.sale.buckets):
        await insert_leases(shop.shard(bucket), shop.sale, bucket, home(shop).index)
    await mark_leased(home(shop), shop.sale.number)


async def granted(shop):
    return [(await shop.lease(bucket)).granted for bucket in range(shop.sale.buckets)]


async def test_a_published_sale_gets_its_leases_and_all_its_units(shop):
    await shop.publish(stock=103, buckets=4)
    await shop.grant()

    assert await granted(shop) == [26, 26, 26, 25]
    assert await shop.pool() == 0
    assert await issued_grants(home(shop)) == []
    assert await shop.broken() == ""


async def test_a_draft_gets_nothing(shop):
    await shop.publish()
    await shop.execute("UPDATE sales SET state = 'draft', published_at = NULL")

    assert await sales_to_lease(home(shop)) == []
    assert await pools_to_grant(home(shop)) == []


async def test_doing_it_again_changes_nothing(shop):
    await shop.publish(stock=100, buckets=4)
    await shop.grant()
    before = await shop.rows("SELECT * FROM applied_grants")
    await shop.grant()
    await shop.grant()

    assert await shop.rows("SELECT * FROM applied_grants") == before
    assert await granted(shop) == [25] * 4


async def test_two_coordinators_at_once_grant_what_one_would_have(shop):
    await shop.publish(stock=100, buckets=4)
    grants = [Grants(shard, shop.shards) for shard in (home(shop), home(shop))]
    await asyncio.gather(*(one.lease_and_grant() for one in grants))
    await asyncio.gather(*(one.lease_and_grant() for one in grants))

    assert sum(await granted(shop)) == 100
    assert await shop.pool() == 0
    assert await shop.broken() == ""


async def test_a_crash_after_any_step_loses_no_unit_and_doubles_none(leased):
    """Each step is called as its own process would, and every one of them twice."""
    await issue_grant(home(leased), leased.sale.number, 1, 40)
    assert (await leased.pool(), await granted(leased)) == (60, [0, 0, 0, 0])
    assert await leased.broken() == ""
    (grant,) = await issued_grants(home(leased))

    for _ in range(2):
        assert await apply_grant(leased.shard(1), grant) is True
        assert (await leased.pool(), await granted(leased)) == (60, [0, 40, 0, 0])
        assert await leased.broken() == ""
    moves = await leased.rows("SELECT kind, units, state FROM bucket_moves", bucket=1)
    assert [tuple(move.values()) for move in moves] == [("top_up", 40, "asked")]

    for _ in range(2):
        await settle_grant(home(leased), grant, taken=True)
        assert await issued_grants(home(leased)) == []
        assert await leased.broken() == ""


async def test_more_than_the_pool_has_is_not_granted(leased):
    await issue_grant(home(leased), leased.sale.number, 0, 101)

    assert await issued_grants(home(leased)) == []
    assert await leased.pool() == 100


async def test_a_grant_that_meets_a_closed_bucket_goes_back_to_the_pool_once(leased):
    await issue_grant(home(leased), leased.sale.number, 1, 40)
    (grant,) = await issued_grants(home(leased))
    await leased.execute("UPDATE bucket_leases SET state = 'closed' WHERE bucket = 1", bucket=1)

    for _ in range(2):
        assert await apply_grant(leased.shard(1), grant) is False
    for _ in range(2):
        await settle_grant(home(leased), grant, taken=False)
    assert (await leased.pool(), await granted(leased)) == (100, [0, 0, 0, 0])
    assert await leased.broken() == ""


async def test_a_grant_to_a_bucket_without_a_lease_row_waits(shop):
    await shop.publish(stock=10)
    await issue_grant(home(shop), shop.sale.number, 0, 10)
    (grant,) = await issued_grants(home(shop))

    assert await apply_grant(shop.shard(0), grant) is None
    assert await issued_grants(home(shop)) == [grant]


async def test_the_pool_is_credited_once_for_each_move(leased):
    number = leased.sale.number
    await issue_grant(home(leased), number, 0, 30)
    for _ in range(3):
        await credit_pool(home(leased), number, 0, 77, 20)
        await credit_pool(home(leased), number, 1, 77, 10)  # another bucket's move 77

    assert await leased.pool() == 100


async def test_new_stock_is_granted_too(shop):
    await shop.publish(stock=10, buckets=2)
    await shop.grant()
    await shop.restock(5)
    await shop.grant()

    assert await granted(shop) == [8, 7]
    assert await shop.broken() == ""


@pytest.mark.parametrize("event", [SaleEvent.PAUSE, SaleEvent.CLOSE])
async def test_a_sale_that_was_closed_gets_no_more_units_and_a_paused_one_does(shop, event):
    await shop.publish(stock=10)
    await lease_all(shop)
    await shop.change(event)
    await shop.grant()

    assert await granted(shop) == ([10] if event is SaleEvent.PAUSE else [0])


async def test_a_shard_that_is_away_holds_up_its_own_grants_alone(shop, shard_urls):
    await shop.publish(stock=100, buckets=4)
    await lease_all(shop)
    impatient = Shards(shard_urls, DatabaseSettings(lock_timeout_ms=100, statement_timeout_ms=500))
    await impatient.read_map()
    other = impatient.of(shop.sale.number, 1)
    async with session(other.url) as frozen, frozen.transaction():
        await frozen.execute("LOCK TABLE bucket_leases IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ShardUnavailable):
            await Grants(impatient.home(shop.sale.number), impatient).lease_and_grant()
    assert await granted(shop) == [25, 0, 25, 0]
    assert await shop.broken() == ""

    await shop.grant()
    assert await granted(shop) == [25] * 4
    await impatient.close()
