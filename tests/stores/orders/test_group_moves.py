"""Seats that are on their way to Redis while members come and go."""

import asyncio
import contextlib

import pytest

from app.inventory.mover import Mover, MoverSettings
from app.kernel.errors import OutcomeUnknown
from app.orders.groups.group import Merge
from app.orders.groups.settling import GroupSettings, GroupSettler
from app.orders.groups.store import merge_groups
from app.orders.store import lock_order
from app.sales.sale import LeaderPolicy
from app.storage.lua import bind_script
from app.storage.redis import open_redis
from tests.stores.orders.lossy_proxy import lossy_proxy
from tests.stores.orders.test_groups import SIZE, GroupSale
from tests.waiting import eventually


@pytest.fixture
async def rescuing(shop):
    """A group sale that merges in the last minute of a group."""
    sale = GroupSale(shop)
    await sale.open(rescue_seconds=60)
    return sale


def settler_of(sale):
    return GroupSettler(sale.shop.shard(), sale.duties, GroupSettings())


@contextlib.asynccontextmanager
async def breakable_mover(sale, stores):
    """Give a mover, and the wire on which it calls its scripts."""
    shop = sale.shop
    async with lossy_proxy(stores.redis_url) as (wire, url):
        redis = open_redis(url, client_name="test-move")
        yield (
            wire,
            Mover(shop.shard(), shop.shards, sale.duties, redis, shop.deployment, MoverSettings()),
        )
        await redis.aclose()


async def test_who_leaves_after_a_merge_is_free_though_the_merge_is_told_late(rescuing, stores):
    """Cat's units come back on one connection while the move that took her along breaks."""
    shop = rescuing.shop
    first, _ = await rescuing.team("ann", "bob")
    second, (cat,) = await rescuing.team("cat")
    for name in (first, second):
        await rescuing.end(name, 50)
    settler = settler_of(rescuing)
    await settler.settle_groups_once()
    await shop.move()
    assert await settler.settle_groups_once() == 1  # merged
    await rescuing.cancel(cat)

    set_seats = bind_script("inventory/set_seats", (await shop.lease()).incarnation)
    async with breakable_mover(rescuing, stores) as (wire, mover):
        wire.refused = set_seats.sha.encode()
        with pytest.raises(OutcomeUnknown):
            await mover.move_once()
        wire.refused = b""
        while await mover.move_once():
            pass

    assert await rescuing.members() == {"ann": first, "bob": first}
    assert await rescuing.at_rest() == ""


@pytest.mark.parametrize("leaderless", ["older", "younger"])
async def test_a_group_that_its_leader_has_ended_takes_no_other_with_it(shop, leaderless):
    sale = GroupSale(shop)
    await sale.open(rescue_seconds=60, leader_leaves=LeaderPolicy.FAIL_GROUP)
    first, older = await sale.team("ann", "bob", "ben")
    second, younger = await sale.team("cat", "dan", "eve")
    await sale.cancel(older[2])
    await sale.cancel(younger[2])
    await shop.move()
    for name in (first, second):
        await sale.end(name, 50)
    settler = settler_of(sale)
    await settler.settle_groups_once()
    await shop.move()
    gone, kept = (older, second) if leaderless == "older" else (younger, first)
    await sale.cancel(gone[0])
    await sale.settle()

    left = first if gone is older else second
    assert [(await sale.group(name)).state for name in (left, kept)] == ["failed", "open"]
    assert (await sale.group(kept)).seats_taken == 2
    assert await sale.at_rest() == ""


async def test_who_was_merged_is_not_merged_again_before_redis_knows(rescuing, stores):
    """Ann and Cat, without Bob, would fill the oldest group; Cat is on the way to Ann's."""
    shop = rescuing.shop
    oldest, _ = await rescuing.team("zed")
    first, (_, bob) = await rescuing.team("ann", "bob")
    second, _ = await rescuing.team("cat")
    settler = settler_of(rescuing)
    for name in (first, second):
        await rescuing.end(name, 50)
    await settler.settle_groups_once()
    await shop.move()
    assert await settler.settle_groups_once() == 1  # merged
    await rescuing.cancel(bob)
    await rescuing.end(oldest, 50)

    async with breakable_mover(rescuing, stores) as (wire, mover):
        wire.refused = b"cat"
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await mover.move_once()
            await settler.settle_groups_once()
        assert [(await rescuing.group(name)).state for name in (oldest, first)] == ["open"] * 2
    await rescuing.settle()

    assert (await rescuing.group(first)).merged_into == oldest
    assert await rescuing.members() == dict.fromkeys(("zed", "ann", "cat"), oldest)
    assert await rescuing.at_rest() == ""


GROUP_IS_FREE = (
    "SELECT count(*) FROM (SELECT FROM groups WHERE id = $1 FOR UPDATE SKIP LOCKED) free"
)
WAITS_FOR_A_LOCK = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND wait_event_type = 'Lock'"""


@pytest.mark.parametrize("how", ["cancelled", "refunded"])
async def test_who_leaves_a_group_locks_it_after_the_lease_row(shop, how):
    """As the flush does, which holds the lease row and then asks for groups."""
    sale = GroupSale(shop)
    await sale.open()
    name, (ann, _) = await sale.team("ann", "bob")
    if how == "refunded":
        await sale.pay(ann)
    async with shop.shard().transaction() as flush:
        await flush.fetch("SELECT FROM bucket_leases FOR UPDATE")
        leaving = asyncio.create_task(sale.refund(ann) if how == "refunded" else sale.cancel(ann))

        async def waits():
            return await shop.value(WAITS_FOR_A_LOCK) == 1

        await eventually(waits)
        assert await flush.fetchval(GROUP_IS_FREE, name) == 1
    await leaving

    assert (await sale.states([ann]))[0] == ("refunded" if how == "refunded" else "closed")
    await sale.settle()
    assert await sale.at_rest() == ""


async def test_two_merges_at_once_fill_a_group_once(rescuing):
    """As when a settler that has lost its duty is still at it."""
    shop = rescuing.shop
    target, (ann, _) = await rescuing.team("ann", "bob")
    sources = [(await rescuing.team(shopper))[0] for shopper in ("cat", "dan")]
    for name in (target, *sources):
        await rescuing.end(name, 50)
    await settler_of(rescuing).settle_groups_once()
    await shop.move()

    async with shop.shard().transaction() as holder:
        await lock_order(holder, ann)
        merges = [
            asyncio.create_task(
                merge_groups(shop.shard(), shop.sale.number, 0, Merge(target, (source,)))
            )
            for source in sources
        ]

        async def both_wait():
            return await shop.value(WAITS_FOR_A_LOCK) == len(merges)

        await eventually(both_wait)
    assert sorted(await asyncio.gather(*merges)) == [False, True]

    assert (await rescuing.group(target)).seats_taken == SIZE
    await shop.move()
    assert await rescuing.at_rest() == ""
