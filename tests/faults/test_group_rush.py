"""The whole rush on a group sale: 5 000 shoppers, 300 units, groups of three."""

import asyncio

import pytest

from tests.journeys.group_rush import rush
from tests.journeys.service import RunningService
from tests.journeys.shop import Promises, visit


@pytest.fixture
def own_service(tmp_path_factory):
    """A service for this rush alone."""
    made = RunningService(tmp_path_factory.mktemp("rush") / "data", api_processes=2)
    yield made
    made.forget()


@pytest.mark.faults
async def test_five_thousand_shoppers_leave_every_group_full_or_refunded(own_service):
    await asyncio.to_thread(own_service.start)
    async with visit(own_service.run) as shop:
        one = await rush(shop, shoppers=5_000, stock=300, window_seconds=60, seed=11)
        assert len(one.bought) >= 300
        assert one.refused["sold_out"] > 0
        await Promises(shop).hold()
        assert await shop.books_balance()
