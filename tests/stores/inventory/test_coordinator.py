"""The coordinator, pass by pass: what it opens, renews, shuts, recovers and closes."""

import asyncio
import contextlib
import time

import pytest

from app.inventory.bucket import Gate, RenewCode
from app.inventory.coordinator import CoordinatorSettings
from app.inventory.lease import LEASE_MS
from app.inventory.server import BucketServer
from app.kernel.errors import ShardUnavailable
from app.orders.answers import PlaceCode, Refused
from app.orders.selling import Accepted
from app.sales.sale import SaleEvent
from app.storage.duties import Duties
from app.storage.shards import LockPurpose
from tests.real_stores import session
from tests.stores.inventory.test_duties import END_LOCK_SESSIONS
from tests.waiting import eventually


@pytest.fixture
async def coordinators(shop):
    """One coordinator per shard."""
    both = [shop.new_coordinator(shard) for shard in shop.shards.all]
    yield both
    for coordinator in both:
        await coordinator.close()


async def coordinate(shop, coordinators, until):
    """Make passes, with the flush and the moves going on, until something is true."""

    async def one_more():
        with contextlib.suppress(ShardUnavailable):  # as the loop of a worker does
            for coordinator in coordinators:
                await coordinator.coordinate_once()
            await shop.move()
        return await until()

    async with shop.flushing():
        return await eventually(one_more, within_seconds=30)


async def open_all(shop, coordinators, **terms):
    await shop.publish(**terms)

    async def is_selling():
        states = [await shop.state(bucket) for bucket in range(shop.sale.buckets)]
        return all(state is not None and state.gate is Gate.OPEN for state in states)

    await coordinate(shop, coordinators, is_selling)


async def test_a_published_sale_is_granted_opened_and_sold(shop, coordinators):
    await open_all(shop, coordinators, stock=100, buckets=4)

    assert [await shop.remaining(bucket) for bucket in range(4)] == [25] * 4
    assert [reason for _, reason in shop.notes.opened] == ["first_opening"] * 4
    await shop.buy("ann")
    assert await shop.at_rest() == ""


async def test_pause_resume_and_close_reach_the_bucket_with_the_next_renewal(shop, coordinators):
    patient = CoordinatorSettings(close_after_seconds=600)
    one = [shop.new_coordinator(shop.shards.all[1], settings=patient), *coordinators[:1]]
    await open_all(shop, one)
    for event, gate, code in (
        (SaleEvent.PAUSE, Gate.PAUSED, PlaceCode.PAUSED),
        (SaleEvent.RESUME, Gate.OPEN, None),
        (SaleEvent.CLOSE, Gate.CLOSED, PlaceCode.ENDED),
    ):
        await shop.change(event)
        await one[0].coordinate_once()
        assert (await shop.state()).gate is gate
        answer = await shop.click_once("ann")
        assert isinstance(answer, Accepted) if code is None else answer == Refused(code)
    await one[0].close()


async def test_a_lease_that_lapsed_is_renewed_and_nothing_else(shop, coordinators):
    await open_all(shop, coordinators)
    await shop.redis.hset(shop.keys().state, "lease_until_ms", 1)
    await coordinators[shop.shard().index].coordinate_once()

    assert (await shop.lease()).epoch == 1
    now_ms = await shop.server.now_ms()
    assert now_ms < (await shop.state()).lease_until_ms <= now_ms + LEASE_MS
    assert len(shop.notes.opened) == 1


async def test_more_buckets_than_connections_are_all_renewed_by_one_pass(shop, coordinators):
    """Twenty on each shard, sixteen connections: who has none waits for one, and is in time."""
    buckets = range(40)
    await open_all(shop, coordinators, stock=400, buckets=len(buckets))
    await shop.placement.close()
    for bucket in buckets:
        await shop.redis.hset(shop.keys(bucket).state, "lease_until_ms", 1)
    began = time.monotonic()
    for coordinator in coordinators:
        await coordinator.coordinate_once()
    took = time.monotonic() - began

    now_ms = await shop.server.now_ms()
    states = [await shop.state(bucket) for bucket in buckets]
    assert all(state.lease_until_ms > now_ms for state in states)
    assert took < LEASE_MS / 1000 / 2, "half a lease, on a machine that does other things"
    assert {(await shop.lease(bucket)).epoch for bucket in buckets} == {1}


# Broken how -> why the next epoch was taken.
BREAKS = [
    ("script_missing", lambda shop: shop.redis.script_flush()),
    ("fenced", lambda shop: shop.redis.hset(shop.keys().state, "fenced", 1)),
    ("gap", lambda shop: shop.execute("UPDATE bucket_leases SET recover_reason = 'gap'")),
    ("recovery", lambda shop: shop.execute("UPDATE bucket_leases SET state = 'draining'")),
]


@pytest.mark.parametrize(("reason", "break_it"), BREAKS)
async def test_what_needs_a_new_epoch_gets_one(shop, coordinators, reason, break_it):
    await open_all(shop, coordinators)
    ann = await shop.buy("ann", 2, key="k-ann")
    await break_it(shop)

    async def is_reopened():
        lease = await shop.lease()
        return (lease.epoch, lease.state) == (2, "open")

    await coordinate(shop, coordinators, is_reopened)
    assert shop.notes.opened[-1] == (2, reason)
    assert await shop.buy("ann", 2, key="k-ann") == ann
    assert await shop.remaining() == 8
    assert await shop.at_rest() == ""


async def test_after_a_sale_has_ended_its_buckets_close_and_the_pool_has_the_rest(
    shop, coordinators
):
    await open_all(shop, coordinators, stock=40, buckets=4)
    await shop.buy("ann", 2)
    await shop.change(SaleEvent.CLOSE)

    async def is_over():
        return await shop.pool() == 38

    await coordinate(shop, coordinators, is_over)
    leases = [await shop.lease(bucket) for bucket in range(4)]
    assert {lease.state for lease in leases} == {"closed"}
    assert len(shop.notes.closed) == 4
    assert await shop.at_rest() == ""


async def test_a_sale_closed_before_it_opened_closes_without_selling(shop, coordinators):
    await shop.publish()
    await shop.grant()
    await shop.change(SaleEvent.CLOSE)

    async def is_over():
        return await shop.pool() == 10

    await coordinate(shop, coordinators, is_over)
    assert shop.notes.opened == []
    assert await shop.at_rest() == ""


# Two coordinators.


async def test_a_standby_does_nothing_and_takes_over_when_the_leader_is_gone(shop, coordinators):
    await open_all(shop, coordinators)
    shard = shop.shard()
    standby = shop.new_coordinator(shard, shop.another_process(shard))
    await shop.execute("UPDATE bucket_leases SET recover_reason = 'gap'")
    for _ in range(3):
        await standby.coordinate_once()
    assert (await shop.lease()).epoch == 1

    async with session(shard.url) as admin:
        assert await admin.fetchval(END_LOCK_SESSIONS)

    async def is_reopened():
        lease = await shop.lease()
        return (lease.epoch, lease.state) == (2, "open")

    await coordinate(shop, [standby], is_reopened)
    await standby.close()
    assert await shop.at_rest() == ""


async def test_two_who_both_think_they_lead_open_one_epoch_at_a_time(shop, coordinators):
    """Each has a lock session of its own database role: nothing but the rows divides them."""
    await open_all(shop, coordinators)
    ann = await shop.buy("ann", 2, key="k-ann")
    shard = shop.shard()
    unlocked = [shop.new_coordinator(shard, Unrivalled(shard)) for _ in range(2)]
    await shop.execute("UPDATE bucket_leases SET recover_reason = 'gap'")

    async def is_reopened():
        await asyncio.gather(*(one.coordinate_once() for one in unlocked))
        await shop.flush()
        lease = await shop.lease()
        state = await shop.state()
        return lease.epoch > 1 and lease.state == "open" and state and state.gate is Gate.OPEN

    await eventually(is_reopened)
    assert await shop.buy("ann", 2, key="k-ann") == ann
    for one in unlocked:
        await one.close()
    assert await shop.at_rest() == ""


class Unrivalled(Duties):
    """Duties of a process that does not know that it has lost its lock."""

    async def has(self, purpose: LockPurpose, subject: int = 0) -> bool:
        return (purpose, subject) == (LockPurpose.COORDINATE, 0)


# Shards that are slow or away.


@contextlib.asynccontextmanager
async def frozen(shard, table):
    """Nobody reads `table` while the block runs: statements wait for three seconds."""
    async with session(shard.url) as other, other.transaction():
        await other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.parametrize("table", ["bucket_leases", "sales"])
async def test_a_shard_that_is_frozen_lets_no_lease_lapse(shop, coordinators, table):
    await open_all(shop, coordinators)
    coordinator = coordinators[shop.shard().index]
    async with frozen(shop.shard(), table):
        await shop.redis.hset(shop.keys().state, "lease_until_ms", 1)
        began = time.monotonic()
        await coordinator.coordinate_once()
        took = time.monotonic() - began
        fields = await shop.redis.hmget(shop.keys().state, "lease_until_ms", "gate")
        assert (int(fields[0]) > await shop.server.now_ms(), fields[1]) == (True, b"open")
        assert took < LEASE_MS / 1000 / 2
    assert (await shop.lease()).epoch == 1


@pytest.mark.parametrize("table", ["bucket_leases", "sales"])
async def test_who_is_cut_off_from_postgres_does_not_undo_the_pause_of_another(
    shop, coordinators, table
):
    """It still believes in an open sale; what another coordinator has shut stays shut."""
    await open_all(shop, coordinators)
    cut_off = coordinators[shop.shard().index]
    assert await shop.renew(gate=Gate.PAUSED) is RenewCode.RENEWED  # by the other one
    async with frozen(shop.shard(), table):
        await shop.redis.hset(shop.keys().state, "lease_until_ms", 1)
        for _ in range(3):
            await cut_off.coordinate_once()
        fields = await shop.redis.hmget(shop.keys().state, "lease_until_ms", "gate")
        assert (int(fields[0]) > await shop.server.now_ms(), fields[1]) == (True, b"paused")


async def test_another_shard_that_is_frozen_keeps_neither_pause_nor_recovery_from_working(
    shop, coordinators
):
    """Bucket 1 lives elsewhere; its grants wait, and the home shard's bucket does not."""
    await open_all(shop, coordinators, buckets=2)
    coordinator = coordinators[shop.shard(0).index]
    await shop.change(SaleEvent.PAUSE)
    await shop.restock(10)
    await shop.execute("UPDATE bucket_leases SET recover_reason = 'gap' WHERE bucket = 0")

    async def is_reopened():
        with contextlib.suppress(ShardUnavailable):
            await coordinator.coordinate_once()
        await shop.move_on(shop.shard(0))
        state = await shop.state(0)
        return state is not None and state.gate is Gate.PAUSED and state.remaining == 10

    async with frozen(shop.shard(1), "applied_grants"), shop.flushing():
        await eventually(is_reopened, within_seconds=20)
    assert (await shop.lease(0)).epoch == 2


async def test_a_coordinator_that_starts_while_a_home_shard_is_away_renews_and_recovers(
    shop, coordinators
):
    """Bucket 1 lives, its sale row cannot be read: it sells on, but no gate is opened unread."""
    await open_all(shop, coordinators, buckets=2)
    for coordinator in coordinators:
        await coordinator.close()
    fresh = shop.new_coordinator(shop.shard(1))

    async def is_renewed(epoch):
        await fresh.coordinate_once()
        lease = await shop.lease(1)
        state = await shop.state(1)
        lasts = state is not None and state.lease_until_ms > await shop.server.now_ms()
        return lasts and (lease.epoch, lease.state) == (epoch, "open")

    async with frozen(shop.shard(0), "sales"), shop.flushing():
        await shop.redis.hset(shop.keys(1).state, "lease_until_ms", 1)
        await eventually(lambda: is_renewed(1), within_seconds=20)
        assert (await shop.state(1)).gate is Gate.OPEN

        await shop.execute("UPDATE bucket_leases SET recover_reason = 'gap'", bucket=1)
        await eventually(lambda: is_renewed(2), within_seconds=30)
        assert (await shop.state(1)).gate is Gate.SHUT

    async def is_open():
        await fresh.coordinate_once()
        return (await shop.state(1)).gate is Gate.OPEN

    await eventually(is_open, within_seconds=20)
    await fresh.close()


async def test_a_server_that_was_just_restarted_gets_no_epoch_yet(shop):
    """Two seconds of the same name come first (docs/HOT_PATH.md §7)."""
    shop.server = BucketServer(shop.redis, shop.deployment, steady_seconds=60)
    hasty = shop.new_coordinator(shop.shards.all[1])
    await shop.publish()
    for _ in range(3):
        await hasty.coordinate_once()
    assert (await shop.lease()).epoch == 0
    assert shop.notes.opened == []
    await hasty.close()
