"""One desk for every test of payments."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.storage.shards import Shards
from tests.stores.payments.desk import Desk, open_desk


@pytest.fixture
async def desk(shards: Shards, tmp_path: Path) -> AsyncIterator[Desk]:
    """Both sides of a payment, on loopback, with fresh shards."""
    async with open_desk(shards, tmp_path) as opened:
        yield opened
