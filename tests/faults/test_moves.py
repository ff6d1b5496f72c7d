"""Row 26 of the fault matrix: units on their way, and whoever carries them dies."""

import pytest

from tests.faults.lab import battle as faults
from tests.faults.lab.scene import new_sale, selling, sold_more
from tests.faults.lab.shoppers import Habits
from tests.faults.lab.site import COORDINATORS, WORKERS
from tests.faults.lab.timing import let_pass
from tests.waiting import eventually

pytestmark = pytest.mark.faults

RESTOCKS = 12
UNITS = 7


async def test_row_26__restocked_and_returned_while_carriers_die__each_unit_arrives_once(site):
    terms = await new_sale(site, stock=40, buckets=2)
    async with selling(site, terms, habits=Habits(cancels=0.6, pays=0)) as battle:
        battle.later(restock(battle))
        for role in (*WORKERS, *COORDINATORS, *WORKERS):
            await faults.role_killed(battle, role)
            await let_pass(0.3)
        await battle.over()
        terms = battle.crowd.history.sales[terms.sale]

        async def granted() -> bool:
            leases = await site.leases([terms.sale])
            return sum(lease.granted for lease in leases) == terms.stock

        await eventually(granted, within_seconds=30)


async def restock(battle) -> None:
    """Add units again and again."""
    sale = battle.crowd.sales[0].sale
    for _ in range(RESTOCKS):
        body = {"units": UNITS, "reason": "more"}
        await battle.site.operate("POST", f"/sales/{sale}/restock", body)
        known = battle.crowd.history.sales[sale]
        battle.crowd.history.sales[sale] = known._replace(stock=known.stock + UNITS)
        await let_pass(0.4)


async def test_row_26__valkey_dies_while_units_return__none_leaks_and_none_doubles(site):
    terms = await new_sale(site, stock=30)
    async with selling(site, terms, habits=Habits(cancels=0.9, pays=0)) as battle:
        await faults.valkey_killed(battle)
        await faults.role_killed(battle, WORKERS[0])
        await sold_more(battle, 5)
