"""Orders that wait for a worker outlive the end of everything, gentle or not."""

import asyncio
import itertools

from tests.journeys.shop import Promises, codes, ids, names, visit
from tests.waiting import eventually


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
