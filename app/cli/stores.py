"""
Which stores a command looks at: those of a running `doorbuster up`, or those it is given.

A flag stands above the environment and doorbuster.toml, those above run.json.
"""

import contextlib
import functools
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import uvloop
from redis.asyncio import Redis

from app.cli.exits import Exit
from app.cli.output import tell
from app.embedded.run_file import read_run_file
from app.kernel.errors import DoorbusterError, OutcomeUnknown, ShardUnavailable, Unavailable
from app.settings import read_settings
from app.storage.redis import open_redis
from app.storage.shards import Database, DatabaseSettings, Shards

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., None])

SELECT_DEPLOYMENT: Final = "SELECT deployment FROM shard_identity"
# One command, one reader, few connections.
DATABASE: Final = DatabaseSettings(connections_max=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUrls:
    """Where the stores are, and the admin listener where it is known."""

    redis: str
    shards: tuple[str, ...]
    ledger: str
    admin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The stores, open."""

    shards: Shards
    redis: Redis
    ledger: Database
    deployment: str


def store_options(command: Command) -> Command:
    """Let a command say which stores it looks at."""
    options = (
        click.option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(".doorbuster"),
            show_default=True,
            help="Of a running `doorbuster up`.",
        ),
        click.option("--redis-url", metavar="U", help="Look at this Redis or Valkey instead."),
        click.option("--shard-url", "shard_urls", metavar="U", multiple=True, help="… this shard."),
        click.option("--ledger-url", metavar="U", help="… this ledger database."),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def find_stores(
    data_dir: Path, redis_url: str | None, shard_urls: tuple[str, ...], ledger_url: str | None
) -> StoreUrls:
    """
    Say where the stores are.

    Raises:
        NotRunning: nothing runs on the data directory, and not all three were given.
        BadConfiguration: the environment or doorbuster.toml cannot be read.
    """
    told = read_settings()
    redis = redis_url or told.redis.url
    shards = shard_urls or told.postgres.shard_urls
    ledger = ledger_url or told.postgres.ledger_url
    if redis and shards and ledger:
        return StoreUrls(redis=redis, shards=shards, ledger=ledger)
    run = read_run_file(data_dir)
    return StoreUrls(
        redis=redis or run.redis,
        shards=shards or run.shards,
        ledger=ledger or run.ledger,
        admin=run.admin,
    )


@contextlib.asynccontextmanager
async def open_stores(urls: StoreUrls, *, with_map: bool = True) -> AsyncGenerator[Stores]:
    """
    Open the stores and ask the shards for the deployment's name.

    Args:
        urls: of find_stores.
        with_map: read the shard map, which every shard has.

    Raises:
        ShardUnavailable: no shard answers.
        BadConfiguration: the shards are not migrated, or not the ones of the map.
    """
    shards = Shards(urls.shards, DATABASE)
    ledger = Database(urls.ledger, DATABASE)
    redis = open_redis(urls.redis, client_name="doorbuster-cli")
    try:
        if with_map:
            await shards.read_map()
        deployment = await _deployment(shards)
        yield Stores(shards=shards, redis=redis, ledger=ledger, deployment=deployment)
    finally:
        await redis.aclose()
        await ledger.close()
        await shards.close()


async def _deployment(shards: Shards) -> str:
    """Return the name that all shards know; the first that answers will do."""
    away: ShardUnavailable | None = None
    for shard in shards.all:
        try:
            async with shard.connection() as connection:
                name: str = await connection.fetchval(SELECT_DEPLOYMENT)
        except ShardUnavailable as error:
            away = away or error
        else:
            return name
    assert away is not None, "there is at least one shard"
    raise away


def run_with_stores(
    ask: Callable[[Stores], Awaitable[T]],
    *,
    with_map: bool = True,
    **where: Any,  # noqa: ANN401  the values of store_options
) -> T:
    """
    Find and open the stores, ask, close them; leave with the right code when that fails.

    Args:
        ask: given the open stores.
        with_map: see open_stores.
        **where: the values of store_options.
    """

    async def opened() -> T:
        async with open_stores(find_stores(**where), with_map=with_map) as stores:
            return await ask(stores)

    return run_or_leave(opened)


def run_or_leave(work: Callable[[], Awaitable[T]]) -> T:
    """Run a command's work; an operating error becomes a sentence and an exit code."""

    async def awaited() -> T:
        return await work()

    try:
        return uvloop.run(awaited())
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except (Unavailable, OutcomeUnknown) as error:
        tell(str(error))
        sys.exit(Exit.UNREACHABLE)
    except DoorbusterError as error:
        tell(str(error))
        sys.exit(Exit.FAILED)
