"""
What every test may ask for.

One Valkey and one Postgres per session; a fresh deployment name and fresh,
migrated databases per test. Only what a test asks for is made.

Of several processes (`--dist loadgroup`), one plays what asks a folder's running
service: to start one takes nine seconds of a processor, and to keep it idle a
seventh of one. What starts its own goes wherever there is room, first of all.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
from redis.asyncio import Redis

from app.storage.shards import Database, DatabaseSettings, Shards
from tests.journeys.service import RunningService
from tests.real_stores import RealStores, run_real_stores

# Long enough for a journey to look at what it has just ended; then its bucket is no more work.
BUCKET_CLOSES_SECONDS: Final = "15"


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests go together, and put the long ones before the short."""
    for item in items:
        if (group := _group_of(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_is_short)


def _group_of(item: pytest.Item) -> str | None:
    """Name the tests that share what is dear to make; None for one that shares nothing."""
    asked = _asked(item)
    if "service" in asked:
        return item.path.parent.name
    return None if "own_service" in asked else str(item.path)


def _is_short(item: pytest.Item) -> bool:
    return not {"service", "own_service"}.intersection(_asked(item))


def _asked(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


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
