"""
What every test may ask for.

One Valkey and one Postgres per session; a fresh deployment name and fresh,
migrated databases per test. Only what a test asks for is made.

Which of several processes plays what is said by sharing.py.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from app.storage.shards import Database, DatabaseSettings, Shards
from tests.journeys.service import RunningService
from tests.real_stores import RealStores, run_real_stores
from tests.sharing import SharingScheduler

# Long enough for a journey to look at what it has just ended; then its bucket is no more work.
BUCKET_CLOSES_SECONDS: Final = "15"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones before the short: what a process begins last, the others wait for."""
    items.sort(key=_is_short)


def _is_short(item: pytest.Item) -> bool:
    asked = item.fixturenames if isinstance(item, pytest.Function) else []
    return not {"service", "own_service"}.intersection(asked)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharingScheduler:
    """Have xdist share out the tests as sharing.py says."""
    return SharingScheduler(config, log)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStores]:
    """One Valkey and one Postgres, real persistence, gone at the end of the session."""
    with run_real_stores(tmp_path_factory.mktemp("stores")) as running:
        yield running


@pytest.fixture
def deployment(stores: RealStores) -> str:
    """The first part of every Redis key of this test."""
    return stores.new_deployment()


@pytest.fixture
def shard_urls(stores: RealStores, deployment: str) -> Iterator[tuple[str, ...]]:
    """Two migrated, empty shards of this test's deployment."""
    with stores.fresh_shards(deployment) as urls:
        yield urls


@pytest.fixture
async def shards(shard_urls: tuple[str, ...]) -> AsyncIterator[Shards]:
    """The same two shards, open, with their map."""
    opened = Shards(shard_urls, DatabaseSettings())
    await opened.read_map()
    yield opened
    await opened.close()


@pytest.fixture
def ledger_url(stores: RealStores) -> Iterator[str]:
    """A migrated ledger without a transfer."""
    with stores.fresh_ledger() as url:
        yield url


@pytest.fixture
async def ledger_database(ledger_url: str) -> AsyncIterator[Database]:
    """The same ledger, open."""
    opened = Database(ledger_url, DatabaseSettings())
    yield opened
    await opened.close()


@pytest.fixture
async def redis(stores: RealStores) -> AsyncIterator[Redis]:
    """A client that may do everything and answers in bytes; use `deployment` in its keys."""
    client = Redis.from_url(stores.redis_url)
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`doorbuster up` with every role as a process; shared, so nothing in it may be killed."""
    running = RunningService(
        tmp_path_factory.mktemp("service") / "data",
        api_processes=2,
        DOORBUSTER_INVENTORY__COORDINATOR_CLOSE_AFTER_SECONDS=BUCKET_CLOSES_SECONDS,
    )
    try:
        running.start()
        yield running
        assert running.stop() == 0
    finally:
        running.forget()
