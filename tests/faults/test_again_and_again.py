"""
Everything is killed again and again, each time just after it has begun to serve.

    FAULT_SECONDS=120   how long
"""

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from loadtest.answers import Outcome
from tests.faults.lab import battle as faults
from tests.faults.lab.battle import SERVED_SECONDS, Battle, Fault
from tests.faults.lab.scene import new_sale, selling
from tests.faults.lab.site import APIS, SHARD_0, SHARD_1, WORKERS
from tests.faults.lab.timing import let_pass

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("FAULT_SECONDS", "120"))


async def test_everything_is_killed_just_after_it_served__half_the_time_it_sells(site):
    here = await new_sale(site, shard=SHARD_0)
    there = await new_sale(site, shard=SHARD_1)
    async with selling(site, here, there) as battle:
        begun_at = time.monotonic()

        def goes_on() -> bool:
            """Whether it has been going on for too short, or has sold for too short."""
            seconds = time.monotonic() - begun_at
            is_short = sold_seconds(battle, begun_at) < SECONDS / 2
            return seconds < SECONDS or (is_short and seconds < 1.5 * SECONDS)

        async with asyncio.TaskGroup() as killers:
            for role in (*APIS, *WORKERS):
                killers.create_task(again(battle, goes_on, kill(role)))
            killers.create_task(again(battle, goes_on, stores_in_turn))
        sold = sold_seconds(battle, begun_at)
        site.note(f"sold in {sold} of {time.monotonic() - begun_at:.0f} seconds")
        assert sold >= SECONDS / 2


def kill(role: str) -> Fault:
    async def once(battle: Battle) -> None:
        await faults.role_killed(battle, role)

    return once


async def stores_in_turn(battle: Battle) -> None:
    """Kill Valkey, and when all sells again and has for a while, a shard."""
    await faults.valkey_killed(battle)
    await let_pass(SERVED_SECONDS["valkey"])
    await faults.shard_killed(battle)


async def again(battle: Battle, goes_on: Callable[[], bool], fault: Fault) -> None:
    while goes_on():
        await fault(battle)


def sold_seconds(battle: Battle, begun_at: float) -> int:
    """Count the seconds in which at least one order was accepted."""
    return len(
        {
            int(click.answered_at - begun_at)
            for click in battle.crowd.history.clicks
            if click.outcome is Outcome.WON and click.answered_at >= begun_at
        }
    )
