"""From a click to an answer: one order per key, whatever is lost on the way."""

import asyncio

import pytest

from app.inventory.bucket import Gate
from app.kernel.clock import SystemClock
from app.kernel.errors import ShardUnavailable
from app.orders.answers import OverLimit, PlaceCode, Refused, SoldOut
from app.orders.placement import Click, Placement
from app.orders.selling import Accepted, NotPlaced, PlacementSettings
from app.storage.script_connection import ScriptConnection
from app.storage.server_clock import ServerClock
from app.storage.shards import DatabaseSettings, Shards
from tests.stores.orders.lossy_proxy import lossy_proxy
from tests.stores.orders.running_sale import IDS
from tests.waiting import eventually


@pytest.fixture
async def wire(shop):
    """A placement whose connections go through a wire that can fail, and the wire."""
    async with lossy_proxy(shop.api_url) as (proxy, url):
        shop.proxied_url = url
        yield proxy


@pytest.fixture
async def through(shop, wire):  # noqa: ARG001  the wire is there first
    """Places orders through the wire, after opening the sale."""
    await shop.open()
    placement = shop.new_placement(url=shop.proxied_url)

    async def click(shopper, quantity=1, key="k1"):
        return await placement.place(shop.sale, Click(shopper, key, quantity))

    yield click
    await placement.close()


async def placed(shop):
    return (await shop.state()).orders_placed


# What one bucket promises to a crowd.


async def test_twenty_clicks_at_once_with_one_key_are_one_order(shop):
    await shop.open()
    answers = await asyncio.gather(*(shop.click_once("ann", key="k1") for _ in range(20)))

    assert {answer.key for answer in answers} == {answers[0].key}
    assert {answer.order_id for answer in answers} == {answers[0].order_id}
    assert sorted(answer.is_replay for answer in answers) == [False] + [True] * 19
    assert (await placed(shop), await shop.remaining()) == (1, 9)
    await shop.flush()
    assert await shop.at_rest() == ""


async def test_twenty_keys_at_once_with_a_limit_of_one_are_one_order(shop):
    await shop.open(limit_per_shopper=1)
    answers = await asyncio.gather(*(shop.click_once("ann", key=f"k{i}") for i in range(20)))

    assert sum(isinstance(answer, Accepted) for answer in answers) == 1
    assert answers.count(OverLimit(0)) == 19
    assert await shop.at_rest() == ""


async def test_one_unit_and_two_hundred_shoppers(shop):
    await shop.open(stock=1)
    answers = await asyncio.gather(*(shop.click_once(f"s{i}") for i in range(200)))

    assert sum(isinstance(answer, Accepted) for answer in answers) == 1
    assert answers.count(SoldOut(0)) == 199
    assert await shop.flush() == 1
    assert await shop.at_rest() == ""
    assert len(shop.notes.calls) < 20, "clicks travel in batches"


async def test_a_winner_who_clicks_again_after_it_is_sold_out_hears_of_the_order(shop):
    await shop.open(stock=2)
    winner = await shop.buy("ann", 2, key="k1")
    assert await shop.click("bob") == SoldOut(0)
    await shop.renew(gate=Gate.PAUSED)

    assert (await shop.click("ann", 2, key="k1")).key == winner


async def test_a_sale_that_is_not_open_to_anybody_yet_says_so(shop):
    await shop.publish()
    assert await shop.click_once("ann") == Refused(PlaceCode.NOT_OPEN)
    await shop.grant()
    assert await shop.click_once("ann") == Refused(PlaceCode.NOT_OPEN)
    await shop.recover(reason="first_opening")
    assert isinstance(await eventually(lambda: accepted(shop)), Accepted)


async def accepted(shop):
    outcome = await shop.click_once("ann", key="k1")
    return outcome if isinstance(outcome, Accepted) else None


async def test_the_rights_of_the_api_suffice(shop):
    """Every click here goes through the api's user; the ids it makes are read back."""
    await shop.open()
    answer = await shop.click("ann")

    assert "admin" not in shop.api_url
    assert IDS.read_own(answer.order_id, "ann") == answer.key


# What is lost on the way.


async def test_a_reply_that_is_lost_is_settled_by_asking_once_more(shop, wire, through):
    assert isinstance(await through("eve", key="k0"), Accepted)
    wire.losing = 1
    answer = await through("ann")

    assert isinstance(answer, Accepted)
    assert answer.is_replay
    assert await placed(shop) == 2
    assert (await through("ann")).key == answer.key


async def test_two_lost_replies_leave_it_unknown_and_the_shoppers_own_retry_settles_it(
    shop, wire, through
):
    assert isinstance(await through("eve", key="k0"), Accepted)
    wire.losing = 2
    assert await through("ann") is NotPlaced.UNKNOWN
    assert await placed(shop) == 2

    async def settled():
        await shop.renew()
        outcome = await through("ann")
        return isinstance(outcome, Accepted) and outcome

    assert (await eventually(settled)).is_replay
    assert await placed(shop) == 2


async def test_a_refusal_after_a_lost_reply_proves_nothing(shop, wire, through):
    """The first call may have placed it; only PLACED and REPLAY are certain."""
    assert isinstance(await through("eve", key="k0"), Accepted)
    wire.losing = 1
    assert await through("ann", 3) is NotPlaced.UNKNOWN
    assert await placed(shop) == 1


async def test_a_server_that_is_away_is_recovering_and_comes_back_by_itself(shop, wire, through):
    assert isinstance(await through("eve", key="k0"), Accepted)
    wire.cut()
    answers = {await through("ann") for _ in range(3)}
    assert answers <= {NotPlaced.RECOVERING, NotPlaced.UNKNOWN}
    assert NotPlaced.RECOVERING in answers
    assert await placed(shop) == 1

    wire.mend()

    async def is_back():
        await shop.renew()
        return isinstance(await through("ann"), Accepted)

    assert await eventually(is_back)


async def test_a_lapsed_lease_is_recovering_until_it_is_renewed(shop):
    await shop.open()
    await shop.buy("eve")
    await shop.redis.hset(shop.keys().state, "lease_until_ms", 1)
    assert await shop.click_once("ann") is NotPlaced.RECOVERING
    assert await shop.click_once("ann") is NotPlaced.RECOVERING

    assert isinstance(await shop.click("ann"), Accepted)
    assert (await shop.lease()).epoch == 1


async def test_the_route_to_the_next_epoch_is_found(shop):
    await shop.open()
    await shop.buy("eve")
    await shop.recover()

    assert (await shop.buy("ann")).epoch == 2


async def test_a_script_that_is_missing_is_never_loaded_by_a_seller(shop):
    await shop.open()
    await shop.buy("eve")
    await shop.redis.script_flush()

    assert await shop.click_once("ann") is NotPlaced.RECOVERING
    assert await placed(shop) == 1
    await shop.recover()
    await shop.buy("ann")


async def test_a_state_that_cannot_be_stops_the_bucket_until_the_next_epoch(shop):
    await shop.open()
    await shop.buy("eve")
    await shop.redis.delete(shop.keys().replays)
    await shop.redis.set(shop.keys().replays, "not a hash")
    assert await shop.click_once("ann") is NotPlaced.BROKEN
    assert await shop.click_once("bob") is NotPlaced.BROKEN
    await shop.redis.delete(shop.keys().replays)
    assert await shop.click_once("bob") is NotPlaced.BROKEN

    await shop.recover()
    assert isinstance(await eventually(lambda: accepted(shop)), Accepted)


# What takes too long.


async def test_a_click_that_waited_too_long_is_refused_before_it_is_sent(shop, wire):
    await shop.open()
    settings = PlacementSettings(calls_at_once_max=1, call_timeout_ms=300, queue_wait_ms_max=50)
    placement = shop.new_placement(settings, shop.proxied_url)
    assert isinstance(await placement.place(shop.sale, Click("eve", "k0", 1)), Accepted)
    before = await placed(shop)

    await shop.redis.client_pause(200, all=False)
    first = asyncio.create_task(placement.place(shop.sale, Click("ann", "k1", 1)))
    await asyncio.sleep(0)
    late = [
        asyncio.create_task(placement.place(shop.sale, Click(f"s{i}", "k", 1))) for i in range(5)
    ]
    assert isinstance(await first, Accepted)
    assert await asyncio.gather(*late) == [NotPlaced.OVERLOADED] * 5
    assert await placed(shop) == before + 1
    assert not wire.is_cut
    await placement.close()


async def test_clicks_that_waited_behind_an_unknown_outcome_are_refused_too(shop, wire):
    """The repeat takes as long as the call: who waited through both is answered, not sent."""
    await shop.open()
    settings = PlacementSettings(calls_at_once_max=1, call_timeout_ms=300, queue_wait_ms_max=50)
    placement = shop.new_placement(settings, shop.proxied_url)
    assert isinstance(await placement.place(shop.sale, Click("eve", "k0", 1)), Accepted)

    await shop.redis.client_pause(450, all=False)
    first = asyncio.create_task(placement.place(shop.sale, Click("ann", "k1", 1)))
    await asyncio.sleep(0)
    late = asyncio.create_task(placement.place(shop.sale, Click("bob", "k1", 1)))
    assert isinstance(await first, Accepted)

    assert await late is NotPlaced.OVERLOADED
    assert wire.losing == 0
    await placement.close()


async def test_a_shard_that_is_away_before_the_first_click_is_said(shop):
    await shop.open()
    nobody = "postgresql://nobody@127.0.0.1:1/nothing"
    away = Shards([nobody, nobody], DatabaseSettings())
    away._map = shop.shards.map  # noqa: SLF001  it was read before they went away
    placement = Placement(
        away,
        IDS,
        lambda: ScriptConnection(shop.api_url, client_name="test"),
        ServerClock(SystemClock()),
        shop.deployment,
        PlacementSettings(),
        shop.notes,
    )
    with pytest.raises(ShardUnavailable):
        await placement.place(shop.sale, Click("ann", "k1", 1))
    await placement.close()
    await away.close()


async def test_a_shard_that_goes_away_later_stops_nobody(shop):
    """Selling asks Redis alone."""
    await shop.open()
    await shop.buy("eve")
    async with shop.shard().connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE bucket_leases, orders IN ACCESS EXCLUSIVE MODE")
        answers = await asyncio.gather(*(shop.click_once(f"s{i}") for i in range(5)))
    assert all(isinstance(answer, Accepted) for answer in answers)


# A full backlog.


async def test_a_full_backlog_is_told_without_asking_and_ends_by_itself(shop):
    await shop.open(stock=9)
    assert isinstance(await shop.click_once("ann"), Accepted)
    await shop.redis.hset(shop.keys().state, "backlog_max", 1)
    full = Refused(PlaceCode.BACKLOG_FULL)
    assert await shop.click_once("bob") == full
    calls = len(shop.notes.calls)
    answers = await asyncio.gather(*(shop.click_once(f"s{i}") for i in range(50)))
    assert answers == [full] * 50
    assert len(shop.notes.calls) == calls, "nobody asked the script what it had just said"

    assert await shop.flush() == 1

    async def is_open_again() -> bool:
        return isinstance(await shop.click_once("bob"), Accepted)

    await eventually(is_open_again)


async def test_a_sold_out_batch_never_speaks_for_the_script(shop):
    await shop.open(stock=1)
    won = await shop.click_once("ann", key="k1")
    assert await shop.click_once("bob") == SoldOut(0)
    again = await shop.click_once("ann", key="k1")
    assert (again.order_id, again.is_replay) == (won.order_id, True)
