"""Open the stores and the providers of one process, and close them at the end."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import structlog
from redis.asyncio import Redis

from app.kernel.clock import SystemClock
from app.kernel.errors import BadConfiguration
from app.orders.sealing import OrderIds
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.stage import PaymentStage, Providers
from app.payments.tally import PaymentTally
from app.settings import Settings, require
from app.settlement.house.provider import open_house
from app.storage.redis import open_redis
from app.storage.shards import Database, Shards
from app.telemetry.metrics import Metrics
from app.wiring.providers import callback_url, open_providers
from app.wiring.routing import open_routing

VERSION: Final = version("doorbuster")
SANDBOX_KEY_ID: Final = "embedded"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Every store of one process, open."""

    shards: Shards
    ledger: Database
    redis: Redis
    deployment: str


@contextlib.asynccontextmanager
async def open_stores(settings: Settings, metrics: Metrics) -> AsyncGenerator[Stores]:
    """
    Open shards, ledger and Redis with full rights, and close them at the end.

    One shard that is away stops its own buckets and no process.

    Raises:
        BadConfiguration: something is not set, not migrated, or another deployment's.
        ShardUnavailable: no shard answers.
    """
    require(
        settings,
        "DOORBUSTER_REDIS__URL",
        "DOORBUSTER_POSTGRES__SHARD_URLS",
        "DOORBUSTER_POSTGRES__LEDGER_URL",
    )
    shards = Shards(settings.postgres.shard_urls, settings.postgres.database)
    ledger = Database(settings.postgres.ledger_url, settings.postgres.database)
    redis = open_redis(settings.redis.url, client_name=f"doorbuster-{metrics.role}")
    for shard in shards.all:
        wait = metrics.shard_pool_wait_seconds.labels(str(shard.index))
        shard.observe_wait = wait.observe
    try:
        for away in await shards.read_map():
            _log.warning("started_without_shard", **away.fields)
        yield Stores(
            shards=shards, ledger=ledger, redis=redis, deployment=settings.redis.deployment
        )
    finally:
        await redis.aclose()
        await asyncio.gather(shards.close(), ledger.close())


@contextlib.asynccontextmanager
async def open_payments(
    settings: Settings, stores: Stores, metrics: Metrics
) -> AsyncGenerator[PaymentStage]:
    """
    Open the providers that are configured.

    Raises:
        BadConfiguration: an account document is wrong; all mistakes at once.
    """
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as opened:
        providers = await opened.enter_async_context(open_providers(settings.payments, clock))
        if settings.payments.sandbox_url:
            provider = SandboxProvider(sandbox_provider_settings(settings), clock)
            providers.append(await opened.enter_async_context(provider))
        tally = PaymentTally(metrics.registry)
        providers += open_house(stores.ledger, clock, settings.payments.bank_account)
        yield PaymentStage(
            shards=stores.shards,
            order_ids=OrderIds(read_id_key(settings)),
            providers=Providers(providers),
            clock=clock,
            settings=settings.payments.flow,
            tally=tally,
            routing=open_routing(settings.payments.routing, providers, clock, tally),
        )


def sandbox_provider_settings(settings: Settings) -> SandboxProviderSettings:
    """Say how the sandbox gateway is reached, and how it reaches us."""
    payments = settings.payments
    return SandboxProviderSettings(
        url=payments.sandbox_url,
        callback_url=callback_url(payments, "sandbox", ""),
        keys={SANDBOX_KEY_ID: payments.sandbox_key.encode()},
    )


def read_id_key(settings: Settings) -> bytes:
    """
    Read the key of order ids.

    Raises:
        BadConfiguration: it is not 16 bytes in hex.
    """
    try:
        return bytes.fromhex(settings.orders.id_key)
    except ValueError as error:
        raise BadConfiguration(setting="DOORBUSTER_ORDERS__ID_KEY", why="not hex") from error
