"""Whatever is killed comes back by itself, and no order is lost on the way."""

import asyncio

import pytest

from tests.journeys.shop import Promises, ids, names, visit
from tests.waiting import eventually

CLICKS = 40


@pytest.fixture
async def broken_service(own_service):
    await asyncio.to_thread(own_service.start)
    return own_service


async def test_each_role_and_store_is_killed_once_and_nothing_is_lost(broken_service):
    service = broken_service
    async with visit(service.run) as shop:
        sale = await shop.open_sale(stock=1_000)
        placed: set[str] = set()
        for role in ("api", "worker", "coordinator", "valkey", "postgres"):
            epoch = (await shop.queue(sale))["epoch"]
            pid = service.pids(role)[0]
            clicks = [
                asyncio.create_task(shop.insist(sale, shopper)) for shopper in names(role, CLICKS)
            ]
            service.kill_role(role)
            answers = await asyncio.gather(*clicks)
            assert {answer.status for answer in answers} == {202}, role
            told = ids(answers)
            assert len(told) == CLICKS
            placed |= told

            def is_told(role=role, pid=pid) -> bool:
                events = [one for one in service.restarts if one["role"] == role]
                return bool(events) and events[-1]["pid"] != pid

            await eventually(is_told, within_seconds=30)
            assert service.pids(role)[0] != pid
            if role == "valkey":
                await shop.until_sells(sale, epoch + 1)

        async def have_come() -> bool:
            return {one["order_id"] for one in await shop.orders_of_sale(sale)} == placed

        await eventually(have_come, within_seconds=60)
        order = await shop.buy(sale, "last")
        await shop.pay(order["order_id"], "last")
        await shop.until_order(order["order_id"], "last", "paid")
        await shop.until_stock(sale, reserved=len(placed) + 1, unflushed=0)
        await Promises(shop).hold()
