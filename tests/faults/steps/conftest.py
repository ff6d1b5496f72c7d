"""A site for each test of a step."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.storage.shards import Database, Shards
from tests.faults.steps.site import Site, open_site
from tests.real_stores import RealStores
from tests.stores.orders.running_sale import running_sale


@pytest.fixture
async def site(  # noqa: PLR0913, PLR0917  fixtures, each once
    stores: RealStores,
    shards: Shards,
    shard_urls: tuple[str, ...],
    ledger_database: Database,
    deployment: str,
    tmp_path: Path,
) -> AsyncIterator[Site]:
    """Stores, a gateway and a sale that is not published yet."""
    async with (
        running_sale(shards, stores.redis_url, stores.redis_api_url, deployment) as sale,
        open_site(sale, stores, shard_urls, ledger_database, tmp_path) as opened,
    ):
        yield opened
