"""
The nemesis: which faults strike, and when, decided from a seed.

One great fault and a handful of small ones, which go on while the site recovers from the great
one. A plan is the same for a seed for ever, as long as the tables below are; add to their ends.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.history import SaleTerms
from tests.faults.lab import battle as faults
from tests.faults.lab.battle import Battle, Fault
from tests.faults.lab.checker import Allowed, Verdict, judge
from tests.faults.lab.results import SeedResult
from tests.faults.lab.shoppers import Crowd
from tests.faults.lab.site import SHARDS, Site
from tests.faults.lab.timing import let_pass

GREAT: Final[tuple[Fault, ...]] = (
    *(faults.valkey_killed,) * 4,
    *(faults.tail_cut,) * 2,
    faults.valkey_emptied,
    *(faults.scripts_flushed,) * 2,
    *(faults.shard_killed,) * 3,
)
SMALL: Final[tuple[Fault, ...]] = (
    *(faults.worker_killed,) * 2,
    *(faults.api_killed,) * 2,
    faults.coordinator_killed,
    *(faults.worker_frozen,) * 2,
    faults.coordinator_frozen,
    faults.api_frozen,
    *(faults.shard_frozen,) * 2,
    faults.valkey_frozen,
    *(faults.replies_dropped,) * 2,
    faults.requests_cut,
    *(faults.commits_unanswered,) * 2,
    *(faults.partitioned,) * 3,
    faults.connections_reset,
    *(faults.locks_taken,) * 2,
    faults.links_slow,
)
WARM_UP_SECONDS: Final = 1.0
CALM_SECONDS: Final = 1.0
STRIKES_MAX_SECONDS: Final = 60.0


SELECT_HELD: Final = """
SELECT l.sale_id, sum(o.units_held)::bigint AS units
FROM orders o JOIN bucket_leases l USING (sale, bucket) WHERE l.sale_id = ANY($1)
GROUP BY l.sale_id"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed does: the great fault, and (pause before it, fault) for each small one."""

    great: Fault
    small: tuple[tuple[float, Fault], ...]

    def __str__(self) -> str:
        names = [f"{pause:.1f} s {fault.__name__}" for pause, fault in self.small]
        return f"{self.great.__name__}, and after {', '.join(names)}"


def plan_of(seed: int) -> Plan:
    """Draw the plan of a seed."""
    chance = random.Random(seed)  # noqa: S311  a seed, not a secret
    small = tuple(
        (chance.uniform(0.1, 1.0), chance.choice(SMALL)) for _ in range(chance.randint(3, 5))
    )
    return Plan(chance.choice(GREAT), small)


async def play(site: Site, seed: int, result: SeedResult) -> Verdict:
    """
    Sell through one seed's faults, and judge.

    Two sales on two shards: one that is sold out soon, and one in two buckets that never is.
    """
    plan = plan_of(seed)
    scarce = SaleTerms(f"scarce-{seed}-{time.time_ns() % 10**6}", 60, 1, 1_999, "CNY")
    plenty = SaleTerms(f"plenty-{seed}-{time.time_ns() % 10**6}", 50_000, 2, 700, "CNY")
    await site.open_sale(scarce)
    await site.open_sale(plenty, buckets=2)
    crowd = Crowd(site, [scarce, plenty, plenty], seed)
    battle = Battle(site, crowd, random.Random(seed))  # noqa: S311
    async with faults.no_crowd_left(battle):
        crowd.begin()
        await let_pass(WARM_UP_SECONDS)
        async with asyncio.timeout(STRIKES_MAX_SECONDS), asyncio.TaskGroup() as strikes:
            strikes.create_task(plan.great(battle))
            strikes.create_task(_strike(battle, plan))
        await battle.over()
        await let_pass(CALM_SECONDS)
        result.faults, result.may_lose = battle.bites, battle.losses
        result.recovery_seconds = [round(one, 1) for one in battle.recoveries]
        verdict = await judge(site, crowd, Allowed(losses=battle.losses))
    battle.tell(verdict.told)
    verdict.wrong += unbitten(plan, battle)
    result.accepted, result.lost = crowd.accepted, verdict.told["lost"]
    result.oversold = await _oversold(site, [scarce, plenty])
    if result.oversold:
        verdict.wrong.append(f"oversold by {result.oversold} units")
    result.wrong = verdict.wrong
    result.verdict = "failed" if verdict.wrong else "passed"
    return verdict


async def _oversold(site: Site, sales: Sequence[SaleTerms]) -> int:
    """Count units that orders hold beyond the stock of their sale."""
    held = Counter[str]()
    for shard in SHARDS:
        for row in await site.query(shard, SELECT_HELD, [terms.sale for terms in sales]):
            held[row["sale_id"]] += row["units"]
    return sum(max(0, held[terms.sale] - terms.stock) for terms in sales)


async def _strike(battle: Battle, plan: Plan) -> None:
    for pause, fault in plan.small:
        await let_pass(pause)
        await fault(battle)


def unbitten(plan: Plan, battle: Battle) -> list[str]:
    """Say what a run was to do and did not: such a run proves nothing."""
    wrong = []
    great = plan.great.__name__.partition("_")
    if not any(bite.startswith(great[0]) for bite in battle.bites):
        wrong.append(f"{plan.great.__name__} did not bite")
    if len(battle.bites) < 2:
        wrong.append(f"only this bit: {battle.bites}")
    if battle.crowd.accepted < 50:
        wrong.append(f"only {battle.crowd.accepted} orders were accepted")
    return wrong
