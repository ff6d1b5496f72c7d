"""Rows 19 and 20 of the fault matrix: what an administrator's hand does to the order stream."""

import time

import msgpack
import pytest

from tests.faults.lab.checker import Allowed
from tests.faults.lab.scene import (
    QUIET,
    battle_of,
    conclude,
    lease_of,
    new_sale,
    selling,
    sold_more,
)
from tests.faults.lab.site import WORKERS
from tests.waiting import eventually

pytestmark = pytest.mark.faults

QUANTITY_REFUSED = 1_001  # a row's CHECK says at most 1 000
SELECT_LETTER = """
SELECT reason, units FROM dead_letters WHERE sale = $1 AND bucket = $2"""


async def place_by_hand(site, lease, quantity: int) -> None:
    """Append an order as place_orders would, but one that no row can hold."""
    async with site.redis() as redis:
        state = site.key(lease, "state")
        before = int(await redis.hget(state, "orders_placed"))
        seconds, _ = await redis.time()
        order = [b"k" * 16, b"f" * 8, b"poisoner", quantity, b"", b""]
        entry = msgpack.packb([1, before, seconds * 1000, [order]], use_bin_type=False)
        async with redis.pipeline(transaction=True) as act:
            act.xadd(site.key(lease, "orders"), {b"b": entry})
            act.hincrby(state, "orders_placed", 1)
            act.hincrby(state, "units_placed", quantity)
            act.hincrby(state, "remaining", -quantity)
            act.hset(site.key(lease, "shoppers"), "poisoner", quantity)
            await act.execute()


async def letters_of(site, lease) -> list:
    return await site.query(lease.shard, SELECT_LETTER, lease.sale, lease.bucket)


async def test_row_19__a_poison_order__parked_while_the_rest_flows(site):
    terms = await new_sale(site)
    battle = battle_of(site, terms, habits=QUIET)
    lease = await lease_of(site, terms)
    for worker in WORKERS:
        site.processes[worker].freeze()
    for _ in range(5):
        await battle.crowd.visit(terms)
    await place_by_hand(site, lease, QUANTITY_REFUSED)
    for _ in range(5):
        await battle.crowd.visit(terms)
    for worker in WORKERS:
        site.processes[worker].thaw()

    async def is_parked() -> bool:
        return bool(await letters_of(site, lease))

    await eventually(is_parked, within_seconds=20)
    (letter,) = await letters_of(site, lease)
    assert (letter["reason"], letter["units"]) == ("unreadable", QUANTITY_REFUSED)
    assert (await lease_of(site, terms)).epoch == lease.epoch, "one bad order stops nobody"
    await conclude(battle, Allowed(letters=frozenset({"unreadable"})))


async def test_row_19__an_entry_nobody_can_read__stops_the_bucket_and_gets_a_new_epoch(site):
    async with selling(site, allowed=Allowed(letters=frozenset({"unreadable"}))) as battle:
        epochs = await battle.epochs()
        lease = await lease_of(site, battle.crowd.sales[0])
        async with site.redis() as redis:
            await redis.xadd(site.key(lease, "orders"), {b"b": b"not msgpack"})
        await battle.reopened(epochs, time.monotonic())
        assert len(await letters_of(site, lease)) == 1
        await sold_more(battle, 25)


async def test_row_20__trimmed_too_far__a_new_epoch_and_those_tickets_answered(site):
    async with selling(site, allowed=Allowed(losses=True)) as battle:
        epochs = await battle.epochs()
        await trim_too_far(battle, orders=40)
        await battle.reopened(epochs, time.monotonic())
        await sold_more(battle, 25)


async def trim_too_far(battle, orders: int) -> None:
    """Throw away entries that no row has yet."""
    site = battle.site
    for worker in WORKERS:
        site.processes[worker].freeze()
    await sold_more(battle, orders)
    lease = await lease_of(site, battle.crowd.sales[0])
    async with site.redis() as redis:
        assert await redis.xtrim(site.key(lease, "orders"), maxlen=0) > 0
    for worker in WORKERS:
        site.processes[worker].thaw()


async def test_row_20__trimmed_too_far_when_nobody_buys_any_more__noticed_all_the_same(site):
    terms = await new_sale(site)
    battle = battle_of(site, terms, habits=QUIET)
    for worker in WORKERS:
        site.processes[worker].freeze()
    for _ in range(5):
        await battle.crowd.visit(terms)
    lease = await lease_of(site, terms)
    async with site.redis() as redis:
        assert await redis.xtrim(site.key(lease, "orders"), maxlen=0) == 5
    for worker in WORKERS:
        site.processes[worker].thaw()
    await battle.reopened({(lease.sale, lease.bucket): lease.epoch}, time.monotonic())
    await conclude(battle, Allowed(losses=True))
