"""Row 17 of the fault matrix: a Postgres shard dies or stands still."""

import itertools
import time

import pytest

from app.orders.placement import bucket_of
from loadtest.answers import ACCEPTED, Outcome
from tests.faults.lab.scene import new_sale, selling, sold_more
from tests.faults.lab.shoppers import Want
from tests.faults.lab.site import APIS, COORDINATORS, ROLES, SHARD_0, SHARD_1, WORKERS
from tests.faults.lab.timing import let_pass
from tests.waiting import eventually

pytestmark = pytest.mark.faults

AWAY_SECONDS = 9.0  # longer than a lease, an idle session and a statement's deadline
# Six roles start one after the other while a shard is away; whoever has an order there waits for
# all of them, and may wait longer than the usual crowd does: 40 s were seen on two busy cores.
PATIENT = {"patience_seconds": 180.0}


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


async def test_a_dead_shard_keeps_no_role_from_starting(site):
    """Every process is started anew meanwhile: the other bucket sells, and both when it is back."""
    terms = await new_sale(site, shard=SHARD_0, buckets=2)
    async with selling(site, terms, **PATIENT) as battle:
        epochs = await battle.epochs()
        await battle.may_kill(SHARD_1)
        site.processes[SHARD_1].kill()
        for role in ROLES:
            await site.restart(role)
        # The crowd's shoppers end up waiting for the dead one: others come.
        here, there = (new_wish(battle, terms, bucket) for bucket in range(2))
        await eventually(lambda: has_won(battle, here), within_seconds=30)
        assert not await has_won(battle, there)

        await site.processes[SHARD_1].start()
        await eventually(lambda: has_won(battle, there), within_seconds=30)
        await sold_more(battle, 20)
        assert await battle.epochs() == epochs, "nothing of Redis was lost"


def new_wish(battle, terms, bucket: int) -> Want:
    """Make up somebody whose orders go to this bucket of two."""
    names = (f"bucket-{bucket}-{number}" for number in itertools.count())
    name = next(name for name in names if bucket_of(name, 2) == bucket)
    return battle.crowd.wish(terms, name)


async def has_won(battle, want: Want) -> bool:
    return (await battle.crowd.click(want)).outcome in ACCEPTED


async def test_without_the_directory_whoever_is_started_anew_serves_the_other_shard(site):
    """The first shard alone knows names: an api that knows the sale goes on selling it."""
    terms = await new_sale(site, shard=SHARD_1)
    async with selling(site, terms, **PATIENT) as battle:
        epochs = await battle.epochs()
        await battle.may_kill(SHARD_0)
        site.processes[SHARD_0].kill()
        for role in (*COORDINATORS, *WORKERS, APIS[1]):
            await site.restart(role)
        await sold_more(battle, 50)
        assert await battle.epochs() == epochs
        await site.processes[SHARD_0].start()
        await sold_more(battle, 20)


def buckets_sold(battle, begun_at: float) -> set[int]:
    """Tell which buckets accepted an order since then."""
    won = [
        click.order_id
        for click in battle.crowd.history.clicks
        if click.outcome is Outcome.WON and click.sent_at >= begun_at
    ]
    return {battle.site.order_ids.read(order_id)[0].bucket for order_id in won}
