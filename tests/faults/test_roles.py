"""Rows 13 to 15 of the fault matrix, and the leases: workers and coordinators."""

import time

import pytest

from loadtest.answers import Outcome
from tests.faults.lab import battle as faults
from tests.faults.lab.proxy import Way
from tests.faults.lab.scene import lease_of, new_sale, selling, sold_more
from tests.faults.lab.site import COORDINATORS, VALKEY, WORKERS
from tests.faults.lab.timing import let_pass
from tests.waiting import eventually

pytestmark = pytest.mark.faults

ZOMBIES_MAX = 6
FENCED = "doorbuster_flush_fenced_total"
ASK_TO_RECOVER = """
UPDATE bucket_leases SET recover_reason = 'operator' WHERE sale = $1 AND bucket = $2"""
SELECT_OWNER = """
SELECT a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1 AND l.objid = $2
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


async def owner_of(site, roles, shard, purpose, subject=0) -> str:
    """Tell which of these roles has a duty, by the link through which its lock came."""

    async def find() -> str:
        rows = await site.query(shard, SELECT_OWNER, purpose, subject)
        ports = {row["client_port"] for row in rows}
        owners = [role for role in roles if ports & site.link(role, shard).outgoing_ports]
        return owners[0] if owners else ""

    return await eventually(find)


async def flusher_of(site, lease) -> str:
    return await owner_of(site, WORKERS, lease.shard, 3, lease.sale << 8 | lease.bucket)


async def leader_of(site, shard) -> str:
    return await owner_of(site, COORDINATORS, shard, 2)


def other(role, roles) -> str:
    return next(one for one in roles if one != role)


async def test_row_13__workers_killed_again_and_again__nothing_twice_and_nothing_left(site):
    async with selling(site) as battle:
        for _ in range(4):
            for worker in WORKERS:
                await faults.role_killed(battle, worker)
            await sold_more(battle, 20)


async def test_row_14__a_zombie_worker_wakes_after_a_recovery__fenced_and_counted(site):
    async with selling(site) as battle:
        for _ in range(ZOMBIES_MAX):
            if await wake_a_zombie(battle) > 0:
                break
        else:
            pytest.fail("no zombie came back with an old batch")
        battle.bit("zombie_fenced")
        await sold_more(battle, 25)


async def wake_a_zombie(battle) -> float:
    """
    Freeze a worker whose batch is read and not written, recover the bucket, let the worker go on.

    Returns:
        Batches of its that were fenced; 0 if the transaction that was caught was no flush.
    """
    site = battle.site
    lease = await lease_of(site, battle.crowd.sales[0])
    zombie = await flusher_of(site, lease)
    link = site.link(zombie, lease.shard)
    fenced = await site.metric(zombie, FENCED)
    held = link.bites.held_bytes
    link.hold_at(b"BEGIN")
    await eventually(lambda: link.bites.held_bytes > held)
    site.processes[zombie].freeze()
    await site.take_locks(lease.shard)  # as the server does after 5 s of silence
    await site.query(lease.shard, ASK_TO_RECOVER, lease.sale, lease.bucket)
    await battle.reopened({(lease.sale, lease.bucket): lease.epoch}, time.monotonic())
    site.processes[zombie].thaw()
    link.release()
    await sold_more(battle, 25)
    return await site.metric(zombie, FENCED) - fenced


async def test_row_15__two_owners_of_one_bucket__one_of_them_is_fenced(site):
    async with selling(site, shoppers=32, think_seconds=0.03) as battle:
        shard = (await lease_of(site, battle.crowd.sales[0])).shard

        async def fenced() -> float:
            return sum([await site.metric(worker, FENCED) for worker in WORKERS])

        before = await fenced()

        async def somebody_is_fenced() -> bool:
            await site.take_locks(shard)
            await let_pass(0.5)
            return await fenced() > before

        await eventually(somebody_is_fenced, within_seconds=30)
        battle.bit("two_owners")
        await sold_more(battle, 25)


async def test_row_15__two_coordinators__never_two_open_epochs(site):
    async with selling(site) as battle:
        lease = await lease_of(site, battle.crowd.sales[0])
        for _ in range(3):
            epochs = await battle.epochs()
            await site.query(lease.shard, ASK_TO_RECOVER, lease.sale, lease.bucket)
            await site.take_locks(lease.shard)  # in the middle of it, the other one leads too
            await battle.reopened(epochs, time.monotonic())
            await sold_more(battle, 20)
        assert await states_that_may_sell(site, lease) == 1


async def states_that_may_sell(site, lease) -> int:
    async with site.redis() as redis:
        tag = f"*:{{{lease.sale}.{lease.bucket}}}:e*:state"
        keys = [key async for key in redis.scan_iter(match=tag)]
        fences = [await redis.hget(key, "fenced") for key in keys]
    return fences.count(b"0")


async def test_a_zombie_coordinator_wakes_after_another_recovered__touches_dead_keys_only(site):
    async with selling(site) as battle:
        lease = await lease_of(site, battle.crowd.sales[0])
        zombie = await leader_of(site, lease.shard)
        link = site.link(zombie, VALKEY)
        held = link.bites.held_bytes
        link.hold_at(b"HSET")  # the epoch is taken in Postgres, and its first key is on the way
        await site.query(lease.shard, ASK_TO_RECOVER, lease.sale, lease.bucket)
        await eventually(lambda: link.bites.held_bytes > held)
        site.processes[zombie].freeze()
        taken = (await lease_of(site, battle.crowd.sales[0])).epoch
        await site.take_locks(lease.shard)
        died_at = time.monotonic()
        await battle.reopened({(lease.sale, lease.bucket): lease.epoch}, died_at)
        now = await lease_of(site, battle.crowd.sales[0])
        link.release()
        site.processes[zombie].thaw()
        await sold_more(battle, 40)
        assert await lease_of(site, battle.crowd.sales[0]) == now or now.epoch >= taken
        assert await states_that_may_sell(site, now) == 1
        battle.bit("zombie_coordinator")


async def test_a_renewal_from_a_frozen_servers_buffer_renews_nothing(site):
    terms = await new_sale(site)
    async with selling(site, terms) as battle, site.redis() as redis:
        lease = await lease_of(site, terms)
        links = site.links(COORDINATORS, [VALKEY])
        held = sum(link.bites.held_bytes for link in links)
        for link in links:
            link.hold(Way.TO_STORE)
        await eventually(lambda: sum(link.bites.held_bytes for link in links) > held)
        for coordinator in COORDINATORS:
            site.processes[coordinator].freeze()
        await let_pass(5)  # longer than a lease
        state = site.key(lease, "state")
        until = await redis.hget(state, "lease_until_ms")
        for link in links:
            link.release()
        late_from = time.monotonic()
        await let_pass(1)
        assert await redis.hget(state, "lease_until_ms") == until
        assert not [
            click
            for click in battle.crowd.history.clicks
            if click.outcome is Outcome.WON and late_from < click.sent_at
        ]
        for coordinator in COORDINATORS:
            site.processes[coordinator].thaw()
        await sold_more(battle, 25)
        assert (await lease_of(site, terms)).epoch == lease.epoch


async def test_a_lapsed_lease_alone_causes_no_new_epoch(site):
    async with selling(site) as battle:
        epochs = await battle.epochs()
        for coordinator in COORDINATORS:
            site.processes[coordinator].freeze()
        await let_pass(10)
        assert not await site.runs(await lease_of(site, battle.crowd.sales[0]))
        for coordinator in COORDINATORS:
            site.processes[coordinator].thaw()
        await sold_more(battle, 25, within_seconds=10)
        assert await battle.epochs() == epochs


async def test_the_leading_coordinator_dies__the_other_renews_before_the_lease_lapses(site):
    async with selling(site) as battle:
        epochs = await battle.epochs()
        shard = (await lease_of(site, battle.crowd.sales[0])).shard
        site.processes[await leader_of(site, shard)].kill()
        killed_at = time.monotonic()
        await sold_more(battle, 100)
        refused = [
            click
            for click in battle.crowd.history.clicks
            if click.code == "recovering" and click.sent_at > killed_at
        ]
        assert not refused
        assert await battle.epochs() == epochs


async def test_coordinator_and_valkey_die_together__the_successor_waits_out_the_lease(site):
    async with selling(site) as battle:
        epochs = await battle.epochs()
        shard = (await lease_of(site, battle.crowd.sales[0])).shard
        await battle.may_kill(VALKEY)
        leader = await leader_of(site, shard)
        died_at = time.monotonic()
        site.processes[leader].kill()
        await site.restart(VALKEY)
        await battle.reopened(epochs, died_at)
        # Nobody can tell the successor when the last renewal was sent (hot path, F4): 6 s.
        assert min(battle.recoveries) >= 6.0
        await sold_more(battle, 25)
