"""A sale that sells, for tests that play one fault by hand."""

import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from loadtest.history import SaleTerms
from tests.faults.lab.battle import Battle, no_crowd_left
from tests.faults.lab.checker import Allowed, Verdict, judge
from tests.faults.lab.shoppers import Crowd, Habits
from tests.faults.lab.site import LeaseRow, Site
from tests.waiting import eventually

ACCEPTED_MIN: Final = 25  # orders before a fault begins
QUIET: Final = Habits(twice_at_once=0, again_later=0, waits_for_row=0, cancels=0, pays=0)

_numbers = itertools.count(1)


async def new_sale(
    site: Site, *, stock: int = 50_000, limit: int = 1, shard: str = "", **more: object
) -> SaleTerms:
    """Open a sale of its own, on a given shard if one is named."""
    while True:
        name = f"scene-{next(_numbers)}-{time.time_ns() % 10**6}"
        terms = await site.open_sale(SaleTerms(name, stock, limit, 1_999, "CNY"), **more)
        if not shard or (await lease_of(site, terms)).shard == shard:
            return terms


async def lease_of(site: Site, terms: SaleTerms) -> LeaseRow:
    """Read the lease row of a sale's first bucket."""
    return min(await site.leases([terms.sale]), key=lambda lease: lease.bucket)


def battle_of(site: Site, *sales: SaleTerms, **crowd: object) -> Battle:
    """Gather a crowd that has not begun yet."""
    seed = next(_numbers)
    gathered = Crowd(site, list(sales), seed, **crowd)  # type: ignore[arg-type]
    return Battle(site, gathered, random.Random(seed))  # noqa: S311  a seed


@asynccontextmanager
async def selling(
    site: Site, *sales: SaleTerms, allowed: Allowed | None = None, **crowd: object
) -> AsyncIterator[Battle]:
    """
    Let a crowd in, wait until it buys, and judge at the end of the block.

    Args:
        sales: where it buys; a new one in one bucket if none is given.
        allowed: what the fault may do to tickets.
        crowd: what Crowd may be told.
    """
    battle = battle_of(site, *(sales or (await new_sale(site),)), **crowd)
    async with no_crowd_left(battle):
        battle.crowd.begin()
        await sold_more(battle, ACCEPTED_MIN)
        yield battle
        await conclude(battle, allowed)


async def conclude(battle: Battle, allowed: Allowed | None = None) -> Verdict:
    """Wait for what runs beside, judge, and fail with everything that is wrong."""
    await battle.over()
    verdict = await judge(battle.site, battle.crowd, allowed or Allowed(losses=battle.losses))
    battle.tell(verdict.told)
    verdict.require()
    return verdict


async def sold_more(battle: Battle, orders: int, within_seconds: float = 60.0) -> None:
    """Wait until so many more orders have been accepted."""
    wanted = battle.crowd.accepted + orders
    await eventually(lambda: battle.crowd.accepted >= wanted, within_seconds=within_seconds)
