"""Orders that wait for a worker: none is lost, and operators see them wait."""

import asyncio

from tests.journeys.shop import codes, ids, names
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
