"""A sale that runs."""

from collections.abc import AsyncIterator

import pytest

from app.storage.shards import Shards
from tests.real_stores import RealStores
from tests.stores.orders.running_sale import RunningSale, running_sale


@pytest.fixture
async def shop(stores: RealStores, shards: Shards, deployment: str) -> AsyncIterator[RunningSale]:
    """A running sale, to be published and opened by the test."""
    async with running_sale(shards, stores.redis_url, stores.redis_api_url, deployment) as opened:
        yield opened
