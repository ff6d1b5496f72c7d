"""Orders that wait for a worker: none is lost, and operators see them wait."""

import asyncio
import itertools

from tests.journeys.shop import Promises, codes, ids, names, visit
from tests.waiting import eventually

ORDERS = 5_000


async def test_five_thousand_orders_wait_for_the_worker_and_all_arrive_once(
    shop, service, promises
):
    sale = await shop.open_sale(stock=ORDERS)
    with service.frozen("worker"):
        crowd = (shop.insist(sale, one) for one in names("b", ORDERS))
        answers = await asyncio.gather(*crowd)
        assert codes(answers) == {"202": ORDERS}
        before = await shop.queue(sale)
        assert before["orders"] == ORDERS
        assert before["entries"] >= 1

        async def has_aged() -> bool:
            now = await shop.queue(sale)
            return now["oldest_age_ms"] > before["oldest_age_ms"] + 300

        await eventually(has_aged)
        totals = (await shop.read("/queues"))["totals"]
        assert totals["orders"] >= ORDERS
        assert await shop.orders_of_sale(sale) == []
    await shop.until_flushed(sale)
    after = await shop.queue(sale)
    assert (after["oldest_age_ms"], after["orders"]) == (0, 0)
    rows = [order["order_id"] for order in await shop.orders_of_sale(sale)]
    assert len(rows) == ORDERS
    assert set(rows) == ids(answers)
    await shop.until_stock(sale, remaining=0, reserved=ORDERS, unflushed=0)
    await promises.hold()


async def all_arrive(service, sale, placed):
    """Wait until every ticket has its row, and everything that must hold does."""
    async with visit(service.run) as shop:
        await shop.until_sells(sale)

        async def have_come() -> bool:
            return {one["order_id"] for one in await shop.orders_of_sale(sale)} == placed

        await eventually(have_come, within_seconds=60)
        bought = await shop.insist(sale, f"late-{len(placed)}")
        assert bought.status == 202
        await shop.until_stock(sale, unflushed=0, reserved=len(placed) + 1)
        await Promises(shop).hold()
        placed.add(bought.body["order_id"])


async def test_queued_orders_outlive_a_stop_and_a_kill_of_everything(own_service):
    await asyncio.to_thread(own_service.start)
    async with visit(own_service.run) as shop:
        sale = await shop.open_sale(stock=1_000)
    placed: set[str] = set()
    rounds = itertools.count()
    for end in (own_service.stop, own_service.kill):
        async with visit(own_service.run) as shop:
            with own_service.frozen("worker"):
                answers = await shop.place_many(sale, names(f"round{next(rounds)}", 150))
                assert codes(answers) == {"202": 150}
                assert (await shop.queue(sale))["orders"] == 150
                placed |= ids(answers)
                own_service.kill_role("worker")  # a frozen one would be waited for
                await asyncio.to_thread(end)
        await asyncio.to_thread(own_service.start)
        await all_arrive(own_service, sale, placed)
    assert await asyncio.to_thread(own_service.stop) == 0
