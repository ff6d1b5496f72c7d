"""
The Valkey and Postgres of one test session, and fresh databases for each test.

The stores live on an event loop and a thread of their own, because they outlast
the loop of any single test, and because Linux ends a child with the *thread*
that started it.

A database is made once, as a copy of a migrated template, and lent again and
again: what the last test wrote is taken away first (fresh_databases.sql). One
whose schema was changed, or that held very many rows, is dropped instead.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.embedded.stores import EmbeddedStores
from app.storage.migrate import migrate_all

T = TypeVar("T")

DEPLOYMENTS: Final = "t-*"  # what the api's Redis user may touch: one name per test
RESTORING: Final = Path(__file__).with_name("fresh_databases.sql").read_text()
FINGERPRINT: Final = "SELECT pristine.fingerprint()"
CLAIM: Final = "UPDATE shard_identity SET deployment = $1"
ROWS_TAKEN_MAX: Final = 2_000  # beyond this a copy is bloated: make a new one
WAIT_SECONDS: Final = 120.0  # a full disk or a hung server must not hang the suite


class LoopThread:
    """An event loop on a thread of its own, for what outlasts a test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stores", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` over there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class FreshDatabases:
    """Copies of one template, each as good as new when it is lent."""

    def __init__(self, template_url: str, numbers: Iterator[int]) -> None:
        self._template_url = template_url
        self._numbers = numbers
        self._idle: list[str] = []
        self._fingerprint = ""

    async def prepare(self) -> None:
        """Put what restores a copy into the template."""
        async with session(self._template_url) as template:
            await template.execute(RESTORING)
            self._fingerprint = await template.fetchval(FINGERPRINT)

    async def take(self, deployment: str | None = None) -> str:
        """
        Return the URL of a copy that holds what the template holds.

        Args:
            deployment: whose shard it is; None for a ledger.
        """
        while self._idle:
            url = self._idle.pop()
            async with session(url) as used:
                if await self._is_restored(used):
                    await _claim(used, deployment)
                    return url
            await drop_database(url)
        url = await copy_database(self._template_url, f"test_{next(self._numbers)}")
        async with session(url) as new:
            await _claim(new, deployment)
        return url

    def give_back(self, url: str) -> None:
        self._idle.append(url)

    async def _is_restored(self, used: asyncpg.Connection) -> bool:
        if await used.fetchval(FINGERPRINT) != self._fingerprint:
            return False
        return await used.fetchval("SELECT pristine.restore()") <= ROWS_TAKEN_MAX


class RealStores:
    """
    One Valkey, one Postgres, and fresh databases.

    Attributes:
        redis_url: of the user who may do everything.
        redis_api_url: of the api's user, who may touch deployments `t-…` alone.
    """

    def __init__(self, thread: LoopThread, embedded: EmbeddedStores) -> None:
        self._thread = thread
        self._numbers = itertools.count(1)
        self._shards = [FreshDatabases(url, self._numbers) for url in embedded.shard_urls]
        self._ledgers = FreshDatabases(embedded.ledger_url, self._numbers)
        self._empty_url = with_database(embedded.ledger_url, "template1")
        self.redis_url = embedded.redis_url
        self.redis_api_url = embedded.redis_api_url
        for databases in (*self._shards, self._ledgers):
            thread.run(databases.prepare())

    def new_deployment(self) -> str:
        """Return a name that no other test of this session uses."""
        return f"t-{next(self._numbers)}"

    @contextlib.contextmanager
    def fresh_shards(self, deployment: str) -> Iterator[tuple[str, ...]]:
        """Lend the URLs of two migrated shards that say they belong to `deployment`."""
        urls = tuple(self._thread.run(databases.take(deployment)) for databases in self._shards)
        yield urls
        for databases, url in zip(self._shards, urls, strict=True):
            databases.give_back(url)

    @contextlib.contextmanager
    def fresh_ledger(self) -> Iterator[str]:
        """Lend the URL of a migrated ledger."""
        url = self._thread.run(self._ledgers.take())
        yield url
        self._ledgers.give_back(url)

    @contextlib.contextmanager
    def empty_databases(self, count: int) -> Iterator[tuple[str, ...]]:
        """Lend the URLs of new databases that hold nothing at all."""
        names = [f"test_{next(self._numbers)}" for _ in range(count)]
        urls = tuple(self._thread.run(copy_database(self._empty_url, name)) for name in names)
        yield urls
        for url in urls:
            self._thread.run(drop_database(url))


@contextlib.contextmanager
def run_real_stores(data_dir: Path) -> Iterator[RealStores]:
    """Start the stores, migrate the templates, stop everything at the end."""
    thread = LoopThread()
    embedded = EmbeddedStores(data_dir, DEPLOYMENTS, discard=True)
    try:
        thread.run(embedded.__aenter__())
        try:
            thread.run(migrate_all(embedded.shard_urls, embedded.ledger_url, "templates"))
            yield RealStores(thread, embedded)
        finally:
            thread.run(embedded.__aexit__(None, None, None))
    finally:
        thread.close()


@contextlib.asynccontextmanager
async def session(url: str, database: str = "") -> AsyncIterator[asyncpg.Connection]:
    """Connect for a moment, to the URL's database or to another one of its server."""
    connection = await asyncpg.connect(with_database(url, database) if database else url)
    try:
        yield connection
    finally:
        await connection.close()


async def copy_database(template_url: str, name: str) -> str:
    """
    Make a database like the template's; nobody may be connected to that one.

    WAL_LOG takes 25 ms where FILE_COPY, which waits for two checkpoints, takes 70
    (Postgres 18, two cores).
    """
    async with session(template_url, "postgres") as postgres:
        await postgres.execute(
            f"CREATE DATABASE {name} TEMPLATE {database_of(template_url)} STRATEGY WAL_LOG"
        )
    return with_database(template_url, name)


async def drop_database(url: str) -> None:
    """Drop it, and end every session that is still in it."""
    async with session(url, "postgres") as postgres:
        await postgres.execute(f"DROP DATABASE {database_of(url)} WITH (FORCE)")


async def _claim(shard: asyncpg.Connection, deployment: str | None) -> None:
    """Give a copy of a template to the test's own deployment."""
    if deployment is not None:
        await shard.execute(CLAIM, deployment)


def database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def with_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
