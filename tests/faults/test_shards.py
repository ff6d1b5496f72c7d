"""Row 17 of the fault matrix: a Postgres shard dies or stands still."""

import time

import pytest

from loadtest.answers import Outcome
from tests.faults.lab.scene import new_sale, selling, sold_more
from tests.faults.lab.site import SHARD_0, SHARD_1
from tests.faults.lab.timing import let_pass
from tests.waiting import eventually

pytestmark = pytest.mark.faults

AWAY_SECONDS = 9.0  # longer than a lease, an idle session and a statement's deadline


def sold(battle, sale: str, begun_at: float) -> int:
    return sum(
        click.outcome is Outcome.WON and click.sale == sale and click.sent_at >= begun_at
        for click in battle.crowd.history.clicks
    )


async def test_row_17__a_shard_is_killed__retried_and_the_other_goes_on(site):
    here = await new_sale(site, shard=SHARD_0)
    there = await new_sale(site, shard=SHARD_1)
    async with selling(site, here, there) as battle:
        epochs = await battle.epochs()
        await battle.may_kill(SHARD_1)
        site.processes[SHARD_1].kill()
        killed_at = time.monotonic()
        await let_pass(AWAY_SECONDS)
        assert sold(battle, here.sale, killed_at + AWAY_SECONDS - 3) > 0
        await site.processes[SHARD_1].start()
        back_at = time.monotonic()
        await eventually(lambda: sold(battle, there.sale, back_at) >= 20, within_seconds=20)
        assert await battle.epochs() == epochs, "nothing of Redis was lost"


async def test_row_17__a_shard_is_frozen__the_other_goes_on_and_all_drains_after(site):
    here = await new_sale(site, shard=SHARD_0)
    there = await new_sale(site, shard=SHARD_1)
    async with selling(site, here, there) as battle:
        epochs = await battle.epochs()
        site.processes[SHARD_1].freeze()
        frozen_at = time.monotonic()
        await let_pass(AWAY_SECONDS)
        assert sold(battle, here.sale, frozen_at + AWAY_SECONDS - 3) > 0
        site.processes[SHARD_1].thaw()
        back_at = time.monotonic()
        await eventually(lambda: sold(battle, there.sale, back_at) >= 20, within_seconds=20)
        assert await battle.epochs() == epochs


@pytest.mark.parametrize("away", ["killed", "frozen"])
async def test_one_dead_shard_stops_only_its_own_buckets(site, away):
    """The sale is at home on the shard that goes away; its other bucket goes on selling."""
    terms = await new_sale(site, shard=SHARD_1, buckets=2)
    async with selling(site, terms) as battle:
        process = site.processes[SHARD_1]
        await battle.may_kill(SHARD_1)
        process.kill() if away == "killed" else process.freeze()
        away_from = time.monotonic()
        await let_pass(AWAY_SECONDS)
        shards = buckets_sold(battle, away_from + AWAY_SECONDS - 3)
        assert 1 in shards, "the bucket on the shard that lives"
        await process.start() if away == "killed" else process.thaw()
        await sold_more(battle, 20)


def buckets_sold(battle, begun_at: float) -> set[int]:
    """Tell which buckets accepted an order since then."""
    won = [
        click.order_id
        for click in battle.crowd.history.clicks
        if click.outcome is Outcome.WON and click.sent_at >= begun_at
    ]
    return {battle.site.order_ids.read(order_id)[0].bucket for order_id in won}
