"""Rows 9, 10, 16 and 18 of the fault matrix: requests and replies that get lost on their way."""

import asyncio

from loadtest.answers import Outcome
from tests.faults.lab.proxy import Way
from tests.faults.lab.scene import (
    QUIET,
    battle_of,
    conclude,
    lease_of,
    new_sale,
    selling,
    sold_more,
)
from tests.faults.lab.site import APIS, VALKEY, WORKERS
from tests.faults.lab.timing import let_pass
from tests.waiting import eventually


async def orders_placed(site, terms) -> int:
    """Ask Valkey itself how many orders a sale's first bucket has placed in this epoch."""
    async with site.redis() as redis:
        lease = await lease_of(site, terms)
        return int(await redis.hget(site.key(lease, "state"), "orders_placed"))


async def test_row_9__one_reply_lost__the_api_asks_again_and_knows(site):
    terms = await new_sale(site)
    battle = battle_of(site, terms, habits=QUIET)
    links = site.links(APIS, [VALKEY])
    for link in links:
        link.drop_replies(b"EVALSHA")
    answers = await battle.crowd.visit(terms)
    assert [answer.outcome for answer in answers] == [Outcome.DUPLICATE]
    assert sum(link.bites.dropped for link in links) >= 1
    assert await orders_placed(site, terms) == 1
    await conclude(battle)


async def test_row_9__every_reply_lost__unknown_until_the_same_key_finds_the_order(site):
    terms = await new_sale(site)
    battle = battle_of(site, terms, habits=QUIET)
    for link in site.links(APIS, [VALKEY]):
        link.drop_replies(b"EVALSHA", times=4)
    await battle.crowd.visit(terms)
    outcomes = [click.outcome for click in battle.crowd.history.clicks]
    assert outcomes[0] is Outcome.UNKNOWN
    assert outcomes[-1] is Outcome.DUPLICATE, "the first call had placed it"
    assert await orders_placed(site, terms) == 1
    await conclude(battle)


async def test_row_10__a_request_cut_in_the_middle_is_not_executed(site):
    terms = await new_sale(site)
    battle = battle_of(site, terms, habits=QUIET)
    links = site.links(APIS, [VALKEY])
    for link in links:
        link.cut_requests(b"EVALSHA", times=2)
    wish = battle.crowd.wish(terms)
    answer = await battle.crowd.click(wish)
    assert answer.outcome is Outcome.UNKNOWN
    assert sum(link.bites.cut for link in links) == 2
    assert await orders_placed(site, terms) == 0
    site.heal()
    assert (await battle.crowd.click_until_final(wish)).outcome is Outcome.WON
    assert await orders_placed(site, terms) == 1
    await conclude(battle)


async def test_row_16__api_killed_while_its_call_is_under_way__same_key_same_order(site):
    terms = await new_sale(site)
    battle = battle_of(site, terms, habits=QUIET)
    crowd = battle.crowd
    await asyncio.gather(*(crowd.visit(terms) for _ in range(16)))  # every connection is open
    before = await orders_placed(site, terms)
    for link in site.links(APIS, [VALKEY]):
        link.hold(Way.TO_CLIENT)
    wishes = [crowd.wish(terms) for _ in range(6)]
    clicks = [asyncio.create_task(crowd.click(wish)) for wish in wishes]

    async def some_are_placed() -> bool:
        return await orders_placed(site, terms) > before

    await eventually(some_are_placed)
    for api in APIS:
        site.processes[api].kill()
    answers = await asyncio.gather(*clicks)
    assert {answer.outcome for answer in answers} == {Outcome.UNKNOWN}
    site.heal()
    await site.start_what_is_down()
    again = await asyncio.gather(*(crowd.click_until_final(wish) for wish in wishes))
    assert Outcome.DUPLICATE in {answer.outcome for answer in again}
    assert len({answer.order_id for answer in again}) == len(wishes)
    assert await orders_placed(site, terms) == before + len(wishes)
    await conclude(battle)


async def test_row_16__clients_hang_up_in_a_storm__every_reply_meets_its_own_request(site):
    terms = await new_sale(site)
    battle = battle_of(site, terms, habits=QUIET)
    crowd = battle.crowd
    for link in site.links(APIS, [VALKEY]):
        link.latency_seconds = 0.02
    patient = []
    wishes = [crowd.wish(terms) for _ in range(60)]
    for wish in wishes:
        await hang_up(crowd, wish)
        patient.append(asyncio.create_task(crowd.visit(terms)))
    site.heal()
    await asyncio.gather(*patient)
    answers = await asyncio.gather(*(crowd.click_until_final(wish) for wish in wishes))
    for wish, answer in zip(wishes, answers, strict=True):
        assert site.order_ids.read_own(answer.order_id, wish.shopper) is not None
    assert Outcome.DUPLICATE in {answer.outcome for answer in answers}, "some had been placed"
    await conclude(battle)


async def hang_up(crowd, wish) -> None:
    """Send an order, and cut the connection before its answer has come."""
    begun = crowd.history.begun
    click = asyncio.create_task(crowd.click(wish))
    await eventually(lambda: crowd.history.begun > begun)
    await let_pass(0.01)
    click.cancel()
    await asyncio.gather(click, return_exceptions=True)


async def test_row_18__the_reply_to_commit_is_lost__repeating_is_harmless(site):
    async with selling(site) as battle:
        shard = (await lease_of(site, battle.crowd.sales[0])).shard
        links = site.links(WORKERS, [shard])
        for _ in range(3):
            before = sum(link.bites.dropped for link in links)
            for link in links:
                link.drop_replies(b"COMMIT")
            await eventually(lambda: sum(link.bites.dropped for link in links) > before)  # noqa: B023  awaited here
            await sold_more(battle, 20)
        battle.bit("commits_unanswered")
