"""
Everything is killed again and again, each time just after it has begun to serve.

    FAULT_SECONDS=120   how long
"""

import asyncio
import os
import time

import pytest

from loadtest.answers import Outcome
from tests.faults.lab import battle as faults
from tests.faults.lab.battle import Battle, Fault
from tests.faults.lab.scene import new_sale, selling
from tests.faults.lab.site import APIS, SHARD_0, SHARD_1, WORKERS

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("FAULT_SECONDS", "120"))


async def test_everything_is_killed_just_after_it_served__sells_half_the_time(site):
    here = await new_sale(site, shard=SHARD_0)
    there = await new_sale(site, shard=SHARD_1)
    async with selling(site, here, there) as battle:
        begun_at = time.monotonic()
        end_at = begun_at + SECONDS
        async with asyncio.TaskGroup() as killers:
            for role in (*APIS, *WORKERS):
                killers.create_task(again(battle, end_at, kill(role)))
            killers.create_task(again(battle, end_at, faults.valkey_killed))
            killers.create_task(again(battle, end_at, faults.shard_killed))
        selling_seconds = seconds_with_orders(battle, begun_at, end_at)
        site.note(f"sold in {selling_seconds} of {SECONDS:.0f} seconds")
        assert selling_seconds >= SECONDS / 2


def kill(role: str) -> Fault:
    async def once(battle: Battle) -> None:
        await faults.role_killed(battle, role)

    return once


async def again(battle: Battle, end_at: float, fault: Fault) -> None:
    while time.monotonic() < end_at:
        await fault(battle)


def seconds_with_orders(battle: Battle, begun_at: float, end_at: float) -> int:
    """Count the seconds in which at least one order was accepted."""
    return len(
        {
            int(click.answered_at)
            for click in battle.crowd.history.clicks
            if click.outcome is Outcome.WON and begun_at < click.answered_at < end_at
        }
    )
