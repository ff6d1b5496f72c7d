"""Rows 1 to 4, 6 to 8 and 25 of the fault matrix: what happens to Valkey."""

import asyncio
import time

import pytest

from loadtest.answers import Outcome
from loadtest.verify import read_orders
from tests.faults.lab import battle as faults
from tests.faults.lab import disk
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
from tests.faults.lab.site import VALKEY, WORKERS
from tests.faults.lab.timing import let_pass
from tests.waiting import eventually

pytestmark = pytest.mark.faults

REOPEN_SECONDS = 10.0  # row 1; a bucket of up to 100 000 orders (P13)


async def test_row_1__valkey_killed_under_load__reopens_with_every_ticket(site):
    async with selling(site) as battle:
        epochs = await battle.epochs()
        await faults.valkey_killed(battle)
        await sold_more(battle, 25)
        assert await battle.epochs() == {name: epoch + 1 for name, epoch in epochs.items()}
        assert max(battle.recoveries) <= REOPEN_SECONDS


async def freeze_workers(battle) -> None:
    """Let tickets gather that only the stream holds."""
    for worker in WORKERS:
        battle.site.processes[worker].freeze()
    await sold_more(battle, 40)


def thaw_workers(site) -> None:
    for worker in WORKERS:
        site.processes[worker].thaw()


async def test_row_2__the_logs_tail_is_lost__those_tickets_and_only_those_are_rejected(site):
    async with selling(site, allowed=Allowed(losses=True)) as battle:
        folder = site.valkey_folder
        whole = disk.last_log(folder).stat().st_size
        epochs, flushed = await battle.epochs(), battle.crowd.accepted
        await freeze_workers(battle)
        await battle.may_kill(VALKEY)
        kept = battle.crowd.accepted
        died_at = time.monotonic()
        site.processes[VALKEY].kill()
        grown = disk.last_log(folder).stat().st_size - whole
        assert disk.cut_tail(folder, grown // 2) > 0
        await site.processes[VALKEY].start()
        thaw_workers(site)
        await battle.reopened(epochs, died_at)
        await sold_more(battle, 25)
        assert kept > flushed
    lost = [one for one in await statuses(battle) if one == "rejected"]
    assert 0 < len(lost) < kept - flushed + 25, "a part of what was not flushed, and no more"


async def statuses(battle) -> list[str]:
    orders = await read_orders(battle.site.public, battle.crowd.history)
    return [order["status"] for order in orders.values()]


async def test_row_3__valkeys_data_is_gone__rebuilt_from_postgres_alone(site):
    async with selling(site, allowed=Allowed(losses=True)) as battle:
        epochs = await battle.epochs()
        await freeze_workers(battle)
        await battle.may_kill(VALKEY)
        died_at = time.monotonic()
        site.processes[VALKEY].kill()
        disk.remove_all(site.valkey_folder)
        await site.processes[VALKEY].start()
        thaw_workers(site)
        await battle.reopened(epochs, died_at)
        await sold_more(battle, 25)
    assert "rejected" in await statuses(battle)


async def test_row_4__the_log_is_corrupt_in_the_middle__closed_until_it_is_taken_away(site):
    async with selling(site, allowed=Allowed(losses=True)) as battle:
        epochs = await battle.epochs()
        await battle.may_kill(VALKEY)
        valkey = site.processes[VALKEY]
        died_at = time.monotonic()
        valkey.kill()
        disk.spoil_middle(site.valkey_folder)
        valkey.spawn()
        assert await valkey.ended(within_seconds=20) != 0
        closed_from = time.monotonic()
        await let_pass(2)
        assert sold_between(battle, closed_from, time.monotonic()) == 0
        disk.remove_all(site.valkey_folder)
        await valkey.start()
        await battle.reopened(epochs, died_at)
        await sold_more(battle, 25)


def sold_between(battle, begun_at: float, ended_at: float) -> int:
    return sum(
        click.outcome is Outcome.WON and begun_at < click.sent_at < ended_at
        for click in battle.crowd.history.clicks
    )


async def test_row_6__no_memory_is_left__refused_before_any_write(site):
    async with selling(site) as battle, site.redis() as redis:
        epochs = await battle.epochs()
        await redis.config_set("maxmemory", "1mb")
        full_from = time.monotonic()
        await eventually(lambda: refused_since(battle, full_from, "recovering") >= 20)
        refused_from = time.monotonic()
        await let_pass(6)  # longer than a lease: a full server can still be renewed and trimmed
        assert sold_between(battle, refused_from, time.monotonic()) == 0
        await redis.config_set("maxmemory", "0")
        await sold_more(battle, 25)
        assert await battle.epochs() == epochs


def refused_since(battle, begun_at: float, code: str) -> int:
    return sum(
        click.code == code and click.sent_at >= begun_at for click in battle.crowd.history.clicks
    )


async def test_row_7__a_script_hangs__refused_fast_and_sells_on_without_a_new_epoch(site):
    async with selling(site) as battle, site.redis() as redis:
        epochs = await battle.epochs()
        hanging = asyncio.create_task(hang(site))
        busy_from = time.monotonic()
        await eventually(lambda: refused_since(battle, busy_from, "recovering") >= 20)
        await redis.script_kill()
        await hanging
        await sold_more(battle, 25)
        assert await battle.epochs() == epochs


async def hang(site) -> None:
    """Run a script that ends only when it is killed."""
    async with site.redis() as redis:
        redis.connection_pool.connection_kwargs["socket_timeout"] = None
        with pytest.raises(Exception, match="killed"):
            await redis.eval("while true do end", 0)


async def test_row_7__scripts_are_flushed_by_mistake__a_new_epoch_and_no_ticket_lost(site):
    async with selling(site) as battle:
        epochs = await battle.epochs()
        await faults.scripts_flushed(battle)
        await sold_more(battle, 25)
        assert await battle.epochs() == {name: epoch + 1 for name, epoch in epochs.items()}


async def test_row_8__valkey_frozen_and_clients_without_patience__settles_within_15_s(site):
    async with selling(site, shoppers=64, think_seconds=0.02) as battle:
        epochs = await battle.epochs()
        valkey = site.processes[VALKEY]
        valkey.freeze()
        frozen_at = time.monotonic()
        await let_pass(5)
        valkey.thaw()
        await sold_more(battle, 64, within_seconds=15)
        assert battle.crowd.history.counts()[Outcome.UNKNOWN] > 0
        assert sold_between(battle, frozen_at, frozen_at + 5) < 5 * 64
        assert await battle.epochs() == epochs, "nothing was lost: the lease is renewed"


async def test_row_25__lease_and_window_are_judged_by_valkeys_clock(site):
    terms = await new_sale(site)
    battle = battle_of(site, terms, habits=QUIET)
    lease = await lease_of(site, terms)
    state = site.key(lease, "state")
    async with site.redis() as redis:
        fields = await redis.hmget(state, "opens_at_ms", "closes_at_ms")
        for field, value, code in (
            ("opens_at_ms", 2**44, "not_open"),
            ("closes_at_ms", 1, "sale_ended"),
        ):
            await redis.hset(state, field, value)
            answer = await first_answer(battle)
            assert answer.code == code
            opens_at, closes_at = fields
            await redis.hset(state, mapping={"opens_at_ms": opens_at, "closes_at_ms": closes_at})
        await redis.hset(state, "lease_until_ms", 1)
        assert (await first_answer(battle)).code in {"recovering", ""}
    await eventually(lambda: site.runs(lease))
    assert (await lease_of(site, terms)).epoch == lease.epoch
    battle.crowd.begin()
    await sold_more(battle, 25)
    await conclude(battle)


async def first_answer(battle):
    """Click once as a new shopper, and leave it at that."""
    crowd = battle.crowd
    want = crowd.wish(crowd.sales[0])
    answer = await crowd.click(want)
    crowd.history.clicks.pop()  # a click of ours, not of the crowd's
    crowd.history.begun -= 1
    return answer
