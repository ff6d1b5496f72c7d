"""
Apply migrations to every database, under a session advisory lock.

Plain SQL files, `NNNN_what.sql`, in order, each in a transaction of its own,
each remembered with the SHA-256 of its text: a file that changed after it was
applied stops the start, because then nobody knows what the schema is.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.kernel.errors import BadConfiguration
from app.kernel.loop import pause
from app.storage.shards import (
    Connection,
    Database,
    DatabaseSettings,
    LockPurpose,
    LockSession,
    Shard,
)

_FOLDER: Final = Path(__file__).parent / "migrations"

CREATE_MIGRATIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
SELECT_HAS_MIGRATIONS: Final = "SELECT to_regclass('schema_migrations') IS NOT NULL"
SELECT_MIGRATIONS: Final = "SELECT version, checksum FROM schema_migrations"
INSERT_MIGRATION: Final = "INSERT INTO schema_migrations (version, checksum) VALUES ($1, $2)"
INSERT_IDENTITY: Final = """
INSERT INTO shard_identity (deployment, shard) VALUES ($1, $2) ON CONFLICT DO NOTHING"""
SELECT_IDENTITY: Final = "SELECT deployment, shard FROM shard_identity"
LOCK_DIRECTORY: Final = "LOCK TABLE sale_directory IN EXCLUSIVE MODE"
SELECT_MAP_WIDTH: Final = """
SELECT coalesce(max(shards), 0)::int AS shards,
       coalesce((SELECT max(sale) FROM sale_directory), 0)::int + 1 AS next_sale
FROM shard_map"""
# A range that no sale has used yet may still be widened.
PUT_MAP_RANGE: Final = """
INSERT INTO shard_map (first_sale, shards) VALUES ($1, $2)
ON CONFLICT (first_sale) DO UPDATE SET shards = excluded.shards"""
SELECT_MAP: Final = "SELECT first_sale, shards FROM shard_map ORDER BY first_sale"
SKIP_NUMBERS: Final = "SELECT setval('sale_numbers', $1, false)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file."""

    version: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class MigrationState:
    """One migration of one database, and whether it is applied."""

    database: str
    version: str
    applied: bool


def read_migrations(folder: str) -> list[Migration]:
    """Return the migrations of `shard` or `ledger`, oldest first."""
    return [
        Migration(path.stem, path.read_text(encoding="utf-8"))
        for path in sorted((_FOLDER / folder).glob("*.sql"))
    ]


async def migrate_all(
    shard_urls: Sequence[str],
    ledger_url: str,
    deployment: str,
    *,
    dry_run: bool = False,
) -> list[MigrationState]:
    """
    Bring every database up to date.

    Safe to run from several processes at once, and again.

    Returns:
        Every migration with `applied` as it was before this call.

    Raises:
        BadConfiguration: an applied file has changed, or a database belongs to
            another deployment or place.
        ShardUnavailable, LedgerUnavailable: a database does not answer.
    """
    settings = DatabaseSettings(connections_max=2, statement_timeout_ms=600_000)
    shards = [Shard(index, url, settings) for index, url in enumerate(shard_urls)]
    ledger = Database(ledger_url, settings)
    states: list[MigrationState] = []
    try:
        for shard in shards:
            states += await _migrate(shard, "shard", f"shard {shard.index}", dry_run=dry_run)
            if not dry_run:
                await _identify(shard, deployment)
        states += await _migrate(ledger, "ledger", "ledger", dry_run=dry_run)
        if not dry_run:
            await _extend_map(shards[0], len(shards))
            await _copy_map(shards[0], shards[1:])
    finally:
        await asyncio.gather(ledger.close(), *(shard.close() for shard in shards))
    return states


async def _migrate(
    database: Database,
    folder: str,
    name: str,
    *,
    dry_run: bool,
) -> list[MigrationState]:
    async with await database.lock_session() as lock, database.connection() as connection:
        await _wait_for_lock(lock)
        applied = await _applied(connection, folder, name)
        states = []
        for migration in read_migrations(folder):
            known = applied.get(migration.version)
            if known not in (None, migration.checksum):
                raise BadConfiguration(
                    database=name,
                    migration=migration.version,
                    why="the file has changed since it was applied",
                )
            if known is None and not dry_run:
                await _apply(connection, lock, migration)
            states.append(MigrationState(name, migration.version, known is not None))
        return states


async def _wait_for_lock(lock: LockSession) -> None:
    while not await lock.try_lock(LockPurpose.MIGRATE):  # noqa: ASYNC110  another process holds it
        await asyncio.sleep(0.1)


async def _applied(connection: Connection, folder: str, name: str) -> dict[str, str]:
    if not await connection.fetchval(SELECT_HAS_MIGRATIONS):
        return {}
    applied = {row["version"]: row["checksum"] for row in await connection.fetch(SELECT_MIGRATIONS)}
    unknown = applied.keys() - {migration.version for migration in read_migrations(folder)}
    if unknown:
        raise BadConfiguration(
            database=name,
            migration=min(unknown),
            why=f"the database is newer than this program, or is no {folder}",
        )
    return applied


async def _apply(connection: Connection, lock: LockSession, migration: Migration) -> None:
    """Apply one file; the lock's session is kept from falling silent meanwhile."""
    done = asyncio.Event()
    keeping = asyncio.create_task(_keep(lock, done))
    try:
        async with connection.transaction():
            await connection.execute(CREATE_MIGRATIONS)
            await connection.execute(migration.text)
            await connection.execute(INSERT_MIGRATION, migration.version, migration.checksum)
    finally:
        done.set()
        await keeping


async def _keep(lock: LockSession, done: asyncio.Event) -> None:
    while not done.is_set():
        await lock.ping()
        await pause(done, 1_000)


async def _identify(shard: Shard, deployment: str) -> None:
    async with shard.connection() as connection:
        await connection.execute(INSERT_IDENTITY, deployment, shard.index)
        known = await connection.fetchrow(SELECT_IDENTITY)
    assert known is not None
    if tuple(known) != (deployment, shard.index):
        raise BadConfiguration(
            setting="DOORBUSTER_POSTGRES__SHARD_URLS",
            why=f"place {shard.index} holds shard {known['shard']} of {known['deployment']}",
        )


async def _extend_map(directory: Shard, shards: int) -> None:
    """Append a range for the sales to come when shards were added."""
    async with directory.transaction() as connection:
        await connection.execute(LOCK_DIRECTORY)
        width = await connection.fetchrow(SELECT_MAP_WIDTH)
        assert width is not None
        if shards < width["shards"]:
            raise BadConfiguration(
                setting="DOORBUSTER_POSTGRES__SHARD_URLS",
                why=f"the shard map knows {width['shards']} shards, {shards} are configured",
            )
        if shards > width["shards"]:
            await connection.execute(PUT_MAP_RANGE, width["next_sale"], shards)
            await connection.execute(SKIP_NUMBERS, width["next_sale"])


async def _copy_map(directory: Shard, others: Sequence[Shard]) -> None:
    """Give every shard the map, so that a process can start while one of them is away."""
    async with directory.connection() as connection:
        ranges = await connection.fetch(SELECT_MAP)
    for shard in others:
        async with shard.connection() as connection:
            await connection.executemany(PUT_MAP_RANGE, [tuple(one) for one in ranges])
            if await connection.fetch(SELECT_MAP) != ranges:
                raise BadConfiguration(shard=shard.index, why="its shard map is another one")
