"""What `doorbuster doctor` looks at in the stores and in the running service."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
from redis.asyncio import Redis

from app.cli.finding import Finding, Health, away, well
from app.cli.stores import DATABASE, StoreUrls
from app.inventory.server import BucketServer
from app.kernel.errors import BadConfiguration, BrokenState, RedisUnavailable, Unavailable
from app.storage.migrate import read_migrations
from app.storage.redis import call_once, open_redis
from app.storage.shards import Database, Shard

POSTGRES_MIN: Final = 15
PROBE_SECONDS: Final = 2.0

SELECT_SERVER: Final = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int / 10000 AS major,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       to_regclass('schema_migrations') IS NOT NULL AS migrated"""
SELECT_VERSIONS: Final = "SELECT version FROM schema_migrations"
SELECT_SCRIPTS: Final = """
SELECT DISTINCT script_sha FROM bucket_leases WHERE state = 'open' AND script_sha IS NOT NULL"""

# What Postgres must not be told to do without: each of them loses confirmed orders.
_WANTED: Final = {"fsync": {"on"}, "full_page_writes": {"on"}}
# "local" waits for our own disk, "remote_apply" for more than "on".
_SYNCHRONOUS: Final = frozenset({"on", "local", "remote_write", "remote_apply"})


async def check_stores(urls: StoreUrls) -> AsyncIterator[Finding]:
    """Look at Redis, every shard, the ledger, and the service if it is known."""
    shards = [Shard(index, url, DATABASE) for index, url in enumerate(urls.shards)]
    ledger = Database(urls.ledger, DATABASE)
    redis = open_redis(urls.redis, client_name="doorbuster-doctor")
    try:
        yield await check_redis(redis)
        for shard in shards:
            yield await check_database(shard, f"shard {shard.index}", "shard")
        yield await check_database(ledger, "ledger", "ledger")
        yield await check_scripts(redis, shards)
    finally:
        await redis.aclose()
        await asyncio.gather(*(database.close() for database in (*shards, ledger)))
    if urls.admin is not None:
        yield await check_readiness(urls.admin)


async def check_redis(redis: Redis) -> Finding:
    """Ask whether the server keeps what it acknowledges."""
    try:
        await BucketServer(redis, "").check_configuration()
    except RedisUnavailable as error:
        return away("redis", str(error), "start it, or correct its URL")
    except (BadConfiguration, BrokenState) as error:
        fix = "set it in the server's configuration file and restart it"
        return Finding("redis", Health.FAIL, str(error), fix)
    return well("redis", "append-only, every write synced, nothing evicted")


async def check_database(database: Database, what: str, folder: str) -> Finding:
    """Ask whether a database is migrated and keeps what it commits."""
    try:
        async with database.connection() as connection:
            server: Any = await connection.fetchrow(SELECT_SERVER)
            rows = await connection.fetch(SELECT_VERSIONS) if server["migrated"] else []
    except Unavailable as error:
        return away(what, str(error), "start it, or correct its URL")
    faults = database_faults(server)
    if faults:
        return Finding(what, Health.FAIL, "; ".join(faults), "correct it in postgresql.conf")
    known = {migration.version for migration in read_migrations(folder)}
    applied = {row["version"] for row in rows}
    if applied != known:
        found = f"{len(known - applied)} migrations are missing, {len(applied - known)} unknown"
        return Finding(what, Health.FAIL, found, "doorbuster migrate")
    return well(what, f"Postgres {server['version']}, migrated, commits are synced")


def database_faults(server: Any) -> list[str]:  # noqa: ANN401  a row of SELECT_SERVER
    """Return what keeps a Postgres from holding orders."""
    faults = [
        f"{name} is {server[name]}"
        for name, wanted in _WANTED.items()
        if server[name] not in wanted
    ]
    if server["synchronous_commit"] not in _SYNCHRONOUS:
        faults.append(f"synchronous_commit is {server['synchronous_commit']}")
    if server["major"] < POSTGRES_MIN:
        faults.append(f"version {server['version']} is older than {POSTGRES_MIN}")
    return faults


async def check_scripts(redis: Redis, shards: list[Shard]) -> Finding:
    """Ask whether the server still has the scripts that open buckets are sold by."""
    wanted: set[str] = set()
    try:
        for shard in shards:
            async with shard.connection() as connection:
                wanted |= {row["script_sha"] for row in await connection.fetch(SELECT_SCRIPTS)}
        hashes = sorted(wanted)
        known = await _scripts_known(redis, hashes) if hashes else []
    except (Unavailable, BrokenState) as error:
        return Finding("scripts", Health.WARN, str(error), "bring the store back first")
    missing = known.count(0)
    if missing:
        fix = "nothing: the coordinator takes a new epoch; see that it runs"
        return Finding("scripts", Health.WARN, f"{missing} of {len(hashes)} are not loaded", fix)
    return well("scripts", f"{len(hashes)} in use, all loaded")


async def _scripts_known(redis: Redis, hashes: list[str]) -> list[int]:
    timeout_ms = int(PROBE_SECONDS * 1000)
    known: list[int] = await call_once(redis, "SCRIPT", "EXISTS", *hashes, timeout_ms=timeout_ms)
    return known


async def check_readiness(admin: str) -> Finding:
    """Ask the admin listener whether the service is ready."""
    timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{admin}/readyz") as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, TimeoutError) as error:
        found = f"{admin} does not answer ({type(error).__name__})"
        return away("service", found, "look into the logs of the data directory")
    if status == 200:
        return well("service", f"{admin} is ready")
    fix = "wait a moment, or look into the logs of the data directory"
    return Finding("service", Health.WARN, f"{admin} answers {status}", fix)
