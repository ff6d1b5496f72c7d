"""
The composition root: settings -> stores -> stages -> a role that runs.

Twenty constructor calls per role, read from top to bottom. What an earlier stage
needs of a later one is handed in here as a callable.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from aiohttp import web
from redis.asyncio import Redis

from app.admission.authenticator import TokenAuthenticator
from app.admission.operators import Operators
from app.admission.settings import read_operator_tokens, read_token_keys
from app.admission.tokens import ShopperTokens
from app.inventory.coordinator import Coordinator
from app.inventory.mover import Mover
from app.inventory.recovery import Recovery
from app.inventory.routes import admin_endpoints as stock_endpoints
from app.inventory.server import BucketServer
from app.inventory.stock import Stock
from app.inventory.tally import RecoveryTally
from app.kernel.clock import SystemClock
from app.kernel.errors import BadConfiguration, DoorbusterError, Unavailable
from app.kernel.loop import Pace, run_loop
from app.orders.closer import Closer
from app.orders.confirmations import Confirmations
from app.orders.desk import OrderDesk
from app.orders.flusher import Flusher
from app.orders.placement import Placement
from app.orders.routes import admin_endpoints as order_admin_endpoints
from app.orders.routes import endpoints as order_endpoints
from app.orders.sealing import OrderIds
from app.orders.tally import FlushTally, PlacementTally
from app.payments.enquiry import enquire_once
from app.payments.expiry import settle_attempts
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.refunds import send_refunds_once
from app.payments.routes import endpoints as payment_endpoints
from app.payments.stage import PaymentStage, Providers
from app.payments.tally import PaymentTally
from app.payments.views import payments_of_order
from app.sales.catalog import Catalog
from app.sales.routes import SaleDesk
from app.sales.routes import admin_endpoints as sale_admin_endpoints
from app.sales.routes import endpoints as sale_endpoints
from app.sandbox.server import run_sandbox
from app.sandbox.settings import SandboxSettings
from app.settings import Settings, require
from app.settlement.books import Books
from app.settlement.poster import post_once
from app.settlement.routes import admin_endpoints as ledger_endpoints
from app.storage.duties import Duties
from app.storage.redis import ScriptConnection, open_redis
from app.storage.server_clock import ServerClock
from app.storage.shards import Database, Shard, Shards
from app.telemetry.lag import measure_lag
from app.telemetry.metrics import Metrics
from app.telemetry.reporter import LogReporter
from app.web.application import build_application
from app.web.endpoint import Endpoint
from app.web.exposition import metrics_endpoint
from app.web.health import Check, Readiness, health_endpoints
from app.web.openapi import openapi_endpoint
from app.web.server import Listener

VERSION: Final = version("doorbuster")
SELLING_SCRIPT: Final = "orders/place_orders"
SANDBOX_KEY_ID: Final = "embedded"

# A worker that found nothing looks again this often; the flusher waits inside its read.
FLUSH_PACE: Final = Pace(idle_ms=20)
WORK_PACE: Final = Pace(idle_ms=200)
LEDGER_PACE: Final = Pace(idle_ms=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Every store of one process, open."""

    shards: Shards
    ledger: Database
    redis: Redis
    deployment: str


@contextlib.asynccontextmanager
async def open_stores(settings: Settings, role: str) -> AsyncGenerator[Stores]:
    """
    Open shards, ledger and Redis with full rights, and close them at the end.

    Raises:
        BadConfiguration: something is not set, not migrated, or another deployment's.
        ShardUnavailable: a shard does not answer.
    """
    require(
        settings,
        "DOORBUSTER_REDIS__URL",
        "DOORBUSTER_POSTGRES__SHARD_URLS",
        "DOORBUSTER_POSTGRES__LEDGER_URL",
    )
    shards = Shards(settings.postgres.shard_urls, settings.postgres.database)
    ledger = Database(settings.postgres.ledger_url, settings.postgres.database)
    redis = open_redis(settings.redis.url, client_name=f"doorbuster-{role}")
    try:
        await shards.read_map()
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
    """Open the providers that are configured."""
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as opened:
        providers = []
        if settings.payments.sandbox_url:
            provider = SandboxProvider(sandbox_provider_settings(settings), clock)
            providers.append(await opened.enter_async_context(provider))
        yield PaymentStage(
            shards=stores.shards,
            order_ids=OrderIds(read_id_key(settings)),
            providers=Providers(providers),
            clock=clock,
            settings=settings.payments.flow,
            tally=PaymentTally(metrics.registry),
        )


def sandbox_provider_settings(settings: Settings) -> SandboxProviderSettings:
    """Say how the sandbox gateway is reached, and how it reaches us."""
    payments = settings.payments
    return SandboxProviderSettings(
        url=payments.sandbox_url,
        callback_url=f"{payments.callback_url.rstrip('/')}/sandbox",
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


async def run_api(settings: Settings, stopping: asyncio.Event) -> None:
    """Serve shoppers and callbacks; the first api process serves operators too."""
    index = settings.process.index
    metrics = Metrics(role="api", process=f"api-{index}", version=VERSION)
    async with contextlib.AsyncExitStack() as opened:
        stores = await opened.enter_async_context(open_stores(settings, "api"))
        stage = await opened.enter_async_context(open_payments(settings, stores, metrics))
        api_url = settings.redis.api_url or settings.redis.url
        redis = open_redis(api_url, client_name="doorbuster-api")
        opened.push_async_callback(redis.aclose)
        api = Api(settings, stores, stage, metrics, redis)
        opened.push_async_callback(api.close)
        readiness = Readiness()
        public = Listener(api.public(readiness), settings.web, readiness)
        admin = Listener(api.admin(readiness), settings.web)
        own = own_listener(settings, metrics, readiness)
        opened.push_async_callback(own.stop)
        opened.push_async_callback(admin.stop)
        opened.push_async_callback(public.stop)
        await public.start(settings.web.host, settings.web.port, reuse_port=True)
        if index == 0:
            await admin.start(settings.web.admin_host, settings.web.admin_port)
        await start_own(own, settings)
        readiness.started = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(api.clock.keep(redis, stopping))
            lag = tasks.create_task(measure_lag(metrics.loop_lag_seconds))
            await stopping.wait()
            lag.cancel()


class Api:
    """Everything an api process serves."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        stage: PaymentStage,
        metrics: Metrics,
        redis: Redis,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._stage = stage
        self._metrics = metrics
        self.clock = ServerClock(SystemClock())
        self.catalog = Catalog(stores.shards)
        self.stock = Stock(stores.shards, stores.redis, stores.deployment)
        api_url = settings.redis.api_url or settings.redis.url
        self.placement = Placement(
            stores.shards,
            partial(ScriptConnection, api_url, client_name="doorbuster-place"),
            self.clock,
            stores.deployment,
            settings.orders.placement,
            PlacementTally(),
        )
        self.confirmations = Confirmations(redis, stores.shards, stores.deployment)
        self.authenticator = TokenAuthenticator(
            ShopperTokens(
                read_token_keys(settings.auth.keys),
                leeway_seconds=settings.auth.leeway_seconds,
                issuer=settings.auth.issuer or None,
                token_bytes_max=settings.auth.token_bytes_max,
                verified_tokens_max=settings.auth.verified_tokens_max,
            ),
            Operators(read_operator_tokens(settings.auth.operators)),
            SystemClock(),
        )

    async def close(self) -> None:
        """Answer everybody that waits, then stop."""
        await self.placement.close()
        await self.confirmations.close()
        await self.catalog.close()

    def public(self, readiness: Readiness) -> web.Application:
        """Build the shoppers' and providers' application."""
        endpoints = [
            *sale_endpoints(self._sale_desk()),
            *order_endpoints(self._order_desk()),
            *payment_endpoints(self._stage),
        ]
        document = openapi_endpoint(endpoints, title="Doorbuster", version=VERSION)
        return self._build([*endpoints, document, *health_endpoints(readiness, {})])

    def admin(self, readiness: Readiness) -> web.Application:
        """Build the operators' application."""
        endpoints = [
            *sale_admin_endpoints(self._sale_desk()),
            *stock_endpoints(self.catalog, self.stock),
            *order_admin_endpoints(self._order_desk()),
            *ledger_endpoints(Books(self._stores.ledger)),
        ]
        document = openapi_endpoint(endpoints, title="Doorbuster, admin", version=VERSION)
        checks = store_checks(self._stores)
        return self._build(
            [
                *endpoints,
                document,
                *health_endpoints(readiness, checks),
                metrics_endpoint(self._metrics),
            ]
        )

    def _build(self, endpoints: Sequence[Endpoint]) -> web.Application:
        return build_application(
            endpoints,
            settings=self._settings.web,
            authenticator=self.authenticator,
            tally=self._metrics.requests,
            now_ms=self.clock.now_ms,
        )

    def _sale_desk(self) -> SaleDesk:
        shortest = 1 if self._settings.embedded else self._settings.sales.pay_within_seconds_min
        return SaleDesk(
            shards=self._stores.shards,
            catalog=self.catalog,
            settings=replace(self._settings.sales, pay_within_seconds_min=shortest),
            now_ms=self.clock.now_ms,
            available=self.stock.available,
            gate_seen=self.stock.gate_seen,
        )

    def _order_desk(self) -> OrderDesk:
        return OrderDesk(
            shards=self._stores.shards,
            catalog=self.catalog,
            placement=self.placement,
            confirmations=self.confirmations,
            ids=self._stage.order_ids,
            settle_attempts=partial(settle_attempts, self._stage),
            money_of_order=partial(payments_of_order, self._stores.shards),
            count_answer=self._metrics.answers.count,
            now_ms=self.clock.now_ms,
        )


async def run_worker(settings: Settings, stopping: asyncio.Event) -> None:
    """Flush, close, move, enquire, refund and post until told to stop."""
    metrics = Metrics(role="worker", process="worker", version=VERSION)
    async with contextlib.AsyncExitStack() as opened:
        stores = await opened.enter_async_context(open_stores(settings, "worker"))
        stage = await opened.enter_async_context(open_payments(settings, stores, metrics))
        readiness = Readiness()
        own = own_listener(settings, metrics, readiness)
        opened.push_async_callback(own.stop)
        async with asyncio.TaskGroup() as tasks:
            for shard in stores.shards.all:
                duties = Duties(shard)
                tasks.create_task(duties.keep(stopping))
                work = shard_work(settings, stores, stage, metrics, shard, duties)
                start_loops(tasks, work, stopping)
            start_loops(tasks, money_work(settings, stores, stage), stopping)
            await start_own(own, settings)
            readiness.started = True
            lag = tasks.create_task(measure_lag(metrics.loop_lag_seconds))
            await stopping.wait()
            lag.cancel()


Work = tuple[str, Callable[[], Awaitable[int]], Pace]


def shard_work(  # noqa: PLR0913, PLR0917  collaborators, each once
    settings: Settings,
    stores: Stores,
    stage: PaymentStage,
    metrics: Metrics,
    shard: Shard,
    duties: Duties,
) -> list[Work]:
    """Return the loops that work on one shard."""
    flusher = Flusher(
        shard,
        duties,
        stores.redis,
        stores.deployment,
        settings.orders.flusher,
        FlushTally(metrics),
    )
    settle = partial(settle_attempts, stage)
    closer = Closer(shard, duties, settle, settings.orders.closer)
    mover = Mover(
        shard,
        stores.shards,
        duties,
        stores.redis,
        stores.deployment,
        settings.inventory.mover,
    )
    return [
        (f"flusher {shard.index}", flusher.flush_once, FLUSH_PACE),
        (f"closer {shard.index}", closer.close_once, WORK_PACE),
        (f"mover {shard.index}", mover.move_once, WORK_PACE),
    ]


def money_work(settings: Settings, stores: Stores, stage: PaymentStage) -> list[Work]:
    """Return the loops that carry money on, over all shards."""

    async def post() -> int:
        report = await post_once(stores.shards, stores.ledger, settings.settlement)
        return report.facts_posted + report.facts_parked

    return [
        ("enquiry", partial(enquire_once, stage), WORK_PACE),
        ("refunds", partial(send_refunds_once, stage), WORK_PACE),
        ("ledger poster", post, LEDGER_PACE),
    ]


def start_loops(tasks: asyncio.TaskGroup, work: Sequence[Work], stopping: asyncio.Event) -> None:
    """Run each loop as a task; a bug in one of them ends the process."""
    for name, once, pace in work:
        tasks.create_task(run_loop(name, once, stopping, LogReporter(), pace), name=name)


async def run_coordinator(settings: Settings, stopping: asyncio.Event) -> None:
    """Look after every bucket, shard by shard, until told to stop."""
    metrics = Metrics(role="coordinator", process="coordinator", version=VERSION)
    pace = Pace(idle_ms=settings.inventory.coordinator.pass_ms)
    async with contextlib.AsyncExitStack() as opened:
        stores = await opened.enter_async_context(open_stores(settings, "coordinator"))
        server = BucketServer(stores.redis, stores.deployment)
        await server.check_configuration()
        readiness = Readiness()
        own = own_listener(settings, metrics, readiness)
        opened.push_async_callback(own.stop)
        async with asyncio.TaskGroup() as tasks:
            for shard in stores.shards.all:
                duties = Duties(shard)
                tasks.create_task(duties.keep(stopping))
                coordinator = coordinator_of(settings, stores, server, metrics, shard, duties)
                opened.push_async_callback(coordinator.close)
                work: Work = (f"coordinator {shard.index}", coordinator.coordinate_once, pace)
                start_loops(tasks, [work], stopping)
            await start_own(own, settings)
            readiness.started = True
            lag = tasks.create_task(measure_lag(metrics.loop_lag_seconds))
            await stopping.wait()
            lag.cancel()


def coordinator_of(  # noqa: PLR0913, PLR0917  collaborators, each once
    settings: Settings,
    stores: Stores,
    server: BucketServer,
    metrics: Metrics,
    shard: Shard,
    duties: Duties,
) -> Coordinator:
    """Make the coordinator of one shard."""
    inventory = settings.inventory.coordinator
    recovery = Recovery(
        shard, server, stores.deployment, inventory.recovery, RecoveryTally(metrics)
    )
    return Coordinator(
        shard,
        stores.shards,
        duties,
        server,
        recovery,
        stores.deployment,
        SELLING_SCRIPT,
        inventory,
        LogReporter(),
    )


async def run_sandbox_role(settings: Settings, stopping: asyncio.Event) -> None:
    """Serve the sandbox gateway."""
    sandbox = SandboxSettings(
        host=settings.sandbox.host,
        port=settings.sandbox.port,
        journal_dir=Path(settings.sandbox.journal_dir),
        keys={SANDBOX_KEY_ID: settings.payments.sandbox_key.encode()},
        clock_factor=settings.sandbox.clock_factor,
    )
    await run_sandbox(sandbox, stopping, lambda _url: None)


def own_listener(settings: Settings, metrics: Metrics, readiness: Readiness) -> Listener:
    """Build the listener on which this process alone tells of itself."""
    app = build_application(
        [*health_endpoints(readiness, {}), metrics_endpoint(metrics)],
        settings=settings.web,
        authenticator=TokenAuthenticator(ShopperTokens(()), Operators(()), SystemClock()),
        tally=metrics.requests,
    )
    return Listener(app, settings.web, readiness)


async def start_own(own: Listener, settings: Settings) -> None:
    """Start it, if this process was given a port for it."""
    if settings.process.metrics_port:
        await own.start(settings.web.admin_host, settings.process.metrics_port)


def store_checks(stores: Stores) -> dict[str, Check]:
    """Say how each store is, for /readyz?verbose."""

    async def shard_check(database: Database) -> str:
        try:
            async with asyncio.timeout(1), database.connection() as connection:
                await connection.fetchval("SELECT 1")
        except (TimeoutError, Unavailable):
            return "away"
        return "well"

    async def redis_check() -> str:
        try:
            async with asyncio.timeout(1):
                await ServerClock(SystemClock()).ask(stores.redis)
        except (TimeoutError, DoorbusterError):
            return "away"
        return "well"

    databases = {f"shard_{shard.index}": shard for shard in stores.shards.all}
    checks: dict[str, Check] = {
        name: partial(shard_check, database)
        for name, database in {**databases, "ledger": stores.ledger}.items()
    }
    return {**checks, "redis": redis_check}
