"""
The door to Postgres: one pool per database, the shard map, and advisory locks.

A driver's exception never leaves this module as such when it only means "the
database does not answer": it becomes ShardUnavailable or LedgerUnavailable.
What a statement itself did wrong (SQLSTATE class 22 or 23) is for the store
that sent it.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Final, Self, TypeAlias, cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from app.kernel.errors import (
    BadConfiguration,
    LedgerUnavailable,
    ShardUnavailable,
    Unavailable,
)

Connection: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"

# The database answers "not now": connection, resources, shutdown, deadlock,
# lock timeout, read-only standby, a password that is being rotated. None of
# these says that the data is wrong.
_NOT_NOW_CLASSES: Final = frozenset({"08", "28", "40", "53", "57", "58"})
_NOT_NOW_CODES: Final = frozenset({"55P03", "25006", "25P02", "25P03", "3D000"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How one process talks to one database."""

    connections_max: int = 8  # of one process to one database; PgBouncer-free sizing
    connect_timeout_ms: int = 3_000  # to open one connection
    statement_timeout_ms: int = 5_000  # to wait for one statement's answer
    lock_timeout_ms: int = 3_000  # to wait for a row lock (docs/HOT_PATH.md §6)
    idle_in_transaction_ms: int = 5_000  # a frozen holder loses its locks (docs/HOT_PATH.md §6)

    def __post_init__(self) -> None:
        assert 1 <= self.connections_max <= 100
        assert 0 < self.lock_timeout_ms <= self.statement_timeout_ms


class Database:
    """
    One Postgres database and this process's pool to it.

    Attributes:
        first_check: of who answers, before anything is asked of it; dropped once passed.
        observe_wait: hears how many seconds each wait for a connection took.
    """

    def __init__(
        self,
        url: str,
        settings: DatabaseSettings,
        *,
        unavailable: type[Unavailable] = LedgerUnavailable,
        **fields: object,
    ) -> None:
        self.url = url
        self._settings = settings
        self._unavailable = unavailable
        self._fields = fields
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening = asyncio.Lock()
        self.first_check: Callable[[Connection], Awaitable[None]] | None = None
        self.observe_wait: Callable[[float], None] = _observe_nothing

    async def close(self) -> None:
        """Give running statements a moment, then cut the connections."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), 2)
        except TimeoutError:
            pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """
        Lend one pooled connection.

        Raises:
            ShardUnavailable, LedgerUnavailable: it does not answer; a statement
                that was sent may or may not have been done.
        """
        with self.translating():
            pool = self._pool or await self._open()
            asked = time.perf_counter()
            connection = await pool.acquire(timeout=self._settings.connect_timeout_ms / 1000)
            self.observe_wait(time.perf_counter() - asked)
            try:
                if self.first_check is not None:
                    await self._meet(connection)
                yield connection
            except (TimeoutError, asyncio.CancelledError, asyncpg.InternalClientError):
                # The answer may still come: nobody else may read it.
                connection.terminate()
                raise
            finally:
                await pool.release(connection, timeout=1)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """Lend a connection in a READ COMMITTED transaction; commit at the end."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def lock_session(self) -> "LockSession":
        """Open a connection outside the pool that can hold advisory locks."""
        with self.translating():
            connection = await asyncpg.connect(
                self.url,
                timeout=self._settings.connect_timeout_ms / 1000,
                command_timeout=self._settings.statement_timeout_ms / 1000,
                server_settings={
                    "application_name": "doorbuster lock",
                    "idle_session_timeout": "5s",
                },
            )
            session = LockSession(self, connection)
            if self.first_check is not None:
                try:
                    await self._meet(connection)
                except BaseException:
                    await session.close()
                    raise
        return session

    @contextlib.contextmanager
    def translating(self) -> Any:  # noqa: ANN401  a generator's type says nothing here
        """Turn "does not answer" of the driver into our error, once."""
        try:
            yield
        except asyncpg.PostgresError as error:
            code = error.sqlstate or ""
            if code[:2] in _NOT_NOW_CLASSES or code in _NOT_NOW_CODES:
                raise self._unavailable(**self._fields, sqlstate=code) from error
            raise
        except (
            OSError,
            TimeoutError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # its state machine, when the server dies mid-answer
        ) as error:
            raise self._unavailable(**self._fields, why=type(error).__name__) from error

    async def _meet(self, connection: Connection) -> None:
        """Check who answers; several may do so at once, and all find the same."""
        if self.first_check is not None:
            await self.first_check(connection)
            self.first_check = None

    async def _open(self) -> "asyncpg.Pool[Any]":
        async with self._opening:
            if self._pool is None:
                settings = self._settings
                self._pool = await asyncpg.create_pool(
                    self.url,
                    min_size=0,
                    max_size=settings.connections_max,
                    timeout=settings.connect_timeout_ms / 1000,
                    command_timeout=settings.statement_timeout_ms / 1000,
                    init=_speak_json,
                    reset=_leave_as_it_is,
                    server_settings={
                        "application_name": "doorbuster",
                        "timezone": "UTC",
                        "lock_timeout": f"{settings.lock_timeout_ms}ms",
                        "idle_in_transaction_session_timeout": (
                            f"{settings.idle_in_transaction_ms}ms"
                        ),
                    },
                )
        return self._pool


def _observe_nothing(_seconds: float) -> None:
    """Stand in until wiring says who wants to hear of waits for a connection."""


async def _speak_json(connection: "asyncpg.Connection[Any]") -> None:
    await connection.set_type_codec(
        "jsonb",
        encoder=json.dumps,
        decoder=json.loads,
        schema="pg_catalog",
    )


async def _leave_as_it_is(_connection: "asyncpg.Connection[Any]") -> None:
    """
    Send nothing when a connection goes back to its pool.

    asyncpg would run four statements to undo changes of the session, as many round trips as
    the work of a short visit. There is nothing to undo: locks, settings and cursors of ours end
    with their transaction, advisory locks live elsewhere (`LockSession`), and asyncpg itself
    rolls back a transaction that was left open.
    """


class Shard(Database):
    """One Postgres database that owns a slice of the order ids."""

    def __init__(self, index: int, url: str, settings: DatabaseSettings) -> None:
        super().__init__(url, settings, unavailable=ShardUnavailable, shard=index)
        self.index = index


@dataclass(frozen=True, slots=True)
class ShardRange:
    """From this sale number on, sales are spread over the first `shards` databases."""

    first_sale: int
    shards: int


class ShardMap:
    """
    Which shard a sale and a bucket live on.

    The map is append-only: a range once written never changes, so an order id
    leads to the same shard for ever, however many shards come later.
    """

    def __init__(self, ranges: Sequence[ShardRange]) -> None:
        assert ranges
        assert ranges[0].first_sale == 1
        assert all(
            earlier.first_sale < later.first_sale for earlier, later in itertools.pairwise(ranges)
        )
        self._ranges = tuple(ranges)

    def home(self, sale: int) -> int:
        """Return the index of the shard where a sale is at home."""
        return sale % self._width(sale)

    def of(self, sale: int, bucket: int) -> int:
        """Return the index of the shard that owns a bucket; bucket 0 stays at home."""
        return (sale + bucket) % self._width(sale)

    def _width(self, sale: int) -> int:
        for part in reversed(self._ranges):
            if sale >= part.first_sale:
                return part.shards
        raise AssertionError(sale)


class Shards:
    """All shards of the deployment, and who lives where."""

    def __init__(self, urls: Sequence[str], settings: DatabaseSettings) -> None:
        if not urls:
            raise BadConfiguration(setting="DOORBUSTER_POSTGRES__SHARD_URLS", why="it is empty")
        self.all = tuple(Shard(index, url, settings) for index, url in enumerate(urls))
        self._map: ShardMap | None = None

    @property
    def directory(self) -> Shard:
        """The first shard of the map: sale numbers and names are given out here."""
        return self.all[0]

    def home(self, sale: int) -> Shard:
        """Return the shard where a sale is at home."""
        return self.all[self.map.home(sale)]

    def of(self, sale: int, bucket: int) -> Shard:
        """Return the shard that owns a bucket and its orders."""
        return self.all[self.map.of(sale, bucket)]

    @property
    def map(self) -> ShardMap:
        """The shard map; read once at start by `read_map`."""
        assert self._map is not None, "read_map comes first"
        return self._map

    async def read_map(self) -> list[ShardUnavailable]:
        """
        Read the shard map from whoever answers, and check that each is the one we think.

        Every shard has the map, so that one which is away keeps nobody from starting.
        It is checked when it is back, before anything else is asked of it; until it
        is found to be the right one, it is away.

        Returns:
            Why, for each shard that is away.

        Raises:
            BadConfiguration: a database is not migrated, is another shard, the maps
                differ, or they name more shards than there are URLs.
            ShardUnavailable: no shard answers.
        """
        told = await asyncio.gather(*map(_read_passport, self.all), return_exceptions=True)
        away = [one for one in told if isinstance(one, ShardUnavailable)]
        for one in told:
            if isinstance(one, BaseException) and one not in away:
                raise one
        maps = [one for one in told if not isinstance(one, BaseException)]
        if not maps:
            raise away[0]
        _check_maps(maps)
        self._take_map(maps[0])
        for shard, one in zip(self.all, told, strict=True):
            if isinstance(one, ShardUnavailable):
                shard.first_check = partial(_join, shard, maps[0])
        return away

    def _take_map(self, ranges: Sequence[ShardRange]) -> None:
        if not ranges or max(part.shards for part in ranges) > len(self.all):
            raise BadConfiguration(
                setting="DOORBUSTER_POSTGRES__SHARD_URLS",
                why=f"the shard map does not fit {len(self.all)} databases",
            )
        self._map = ShardMap(ranges)

    async def close(self) -> None:
        """Close every pool."""
        await asyncio.gather(*(shard.close() for shard in self.all))


async def _read_passport(shard: Shard) -> list[ShardRange]:
    async with shard.connection() as connection:
        return await _passport_of(shard, connection)


async def _passport_of(shard: Shard, connection: Connection) -> list[ShardRange]:
    """
    Read the map as one database has it.

    Raises:
        BadConfiguration: it is not migrated, or another shard.
    """
    if not await connection.fetchval(SELECT_IS_MIGRATED):
        raise BadConfiguration(shard=shard.index, why="run `doorbuster migrate` first")
    known = await connection.fetchval(SELECT_SHARD_IDENTITY)
    if known != shard.index:
        raise BadConfiguration(
            setting="DOORBUSTER_POSTGRES__SHARD_URLS",
            why=f"the database in place {shard.index} says it is shard {known}",
        )
    rows = await connection.fetch(SELECT_SHARD_MAP)
    return [ShardRange(row["first_sale"], row["shards"]) for row in rows]


def _check_maps(maps: Sequence[Sequence[ShardRange]]) -> None:
    if any(one != maps[0] for one in maps):
        raise BadConfiguration(why="the shards have different maps: run `doorbuster migrate`")


async def _join(shard: Shard, ranges: Sequence[ShardRange], connection: Connection) -> None:
    """
    Check a shard that was away when this process started.

    Raises:
        ShardUnavailable: it is not the right one, which must stop nothing but itself.
    """
    try:
        _check_maps([await _passport_of(shard, connection), ranges])
    except BadConfiguration as error:
        raise ShardUnavailable(**{"shard": shard.index, **error.fields}) from error


SELECT_IS_MIGRATED: Final = "SELECT to_regclass('shard_identity') IS NOT NULL"
SELECT_SHARD_IDENTITY: Final = "SELECT shard FROM shard_identity"
SELECT_SHARD_MAP: Final = "SELECT first_sale, shards FROM shard_map ORDER BY first_sale"


class LockPurpose(IntEnum):
    """What an advisory lock is for: the first half of its key."""

    MIGRATE = 1
    COORDINATE = 2
    FLUSH = 3
    MOVE = 4
    CLOSE = 5


class LockSession:
    """
    A connection of its own that holds session advisory locks.

    asyncpg's pool releases advisory locks silently when a connection goes back,
    hence one outside any pool. The server ends a session that is silent for 5 s,
    so a frozen holder loses its locks; `ping` each second keeps them. Losing a
    lock never costs correctness (epochs and offsets are compared inside each
    transaction); it only costs doing things twice.
    """

    def __init__(self, database: Database, connection: "asyncpg.Connection[Any]") -> None:
        self._database = database
        self._connection = connection
        self._turn = asyncio.Lock()

    async def try_lock(self, purpose: LockPurpose, subject: int = 0) -> bool:
        """Take the lock if nobody else has it; taking it twice is harmless."""
        return bool(await self._ask("SELECT pg_try_advisory_lock($1, $2)", purpose, subject))

    async def unlock(self, purpose: LockPurpose, subject: int = 0) -> None:
        """Let the lock go."""
        await self._ask("SELECT pg_advisory_unlock($1, $2)", purpose, subject)

    async def ping(self) -> None:
        """
        Keep the session alive.

        Raises:
            ShardUnavailable, LedgerUnavailable: the session, and with it every
                lock, may be gone.
        """
        await self._ask("SELECT 1")

    async def _ask(self, statement: str, *arguments: int) -> object:
        async with self._turn:
            with self._database.translating():
                return cast("object", await self._connection.fetchval(statement, *arguments))

    async def close(self) -> None:
        """End the session; the server frees its locks. One that is gone is ended."""
        gone = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
        with contextlib.suppress(TimeoutError, OSError, *gone):
            await self._connection.close(timeout=1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def bucket_subject(sale: int, bucket: int) -> int:
    """Return the second half of a bucket's lock key: 22 + 8 bits."""
    return sale << 8 | bucket
