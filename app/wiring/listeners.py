"""What every process tells of itself: health and metrics, on a port of its own."""

import asyncio
from functools import partial

from app.admission.authenticator import TokenAuthenticator
from app.admission.operators import Operators
from app.admission.tokens import ShopperTokens
from app.kernel.clock import SystemClock
from app.kernel.errors import DoorbusterError, Unavailable
from app.settings import Settings
from app.storage.server_clock import ServerClock
from app.storage.shards import Database
from app.telemetry.metrics import Metrics
from app.web.application import build_application
from app.web.exposition import metrics_endpoint
from app.web.health import Check, Readiness, health_endpoints
from app.web.server import Listener
from app.wiring.stores import (
    Stores,
)


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
