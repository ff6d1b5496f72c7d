"""Paid orders on a real shard, and the acts of this stage over them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.storage.shards import Shards
from tests.stores.fulfilment.scene import Scene
from tests.stores.payments.desk import open_desk


@pytest.fixture
async def scene(shards: Shards, tmp_path: Path) -> AsyncIterator[Scene]:
    """Both sides of a payment, a sale with a policy, and what follows a payment."""
    async with open_desk(shards, tmp_path) as desk:
        opened = Scene(desk)
        await opened.write_sale()
        yield opened
