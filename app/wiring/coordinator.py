"""The coordinator: look after every bucket."""

import asyncio
import contextlib
from typing import Final

from app.inventory.coordinator import Coordinator
from app.inventory.recovery import Recovery
from app.inventory.server import BucketServer
from app.inventory.tally import RecoveryTally
from app.inventory.watch import Watch
from app.kernel.loop import Pace
from app.orders.scripts import SELLING_SCRIPTS
from app.settings import Settings
from app.storage.duties import Duties
from app.storage.shards import Shard
from app.telemetry.lag import measure_lag
from app.telemetry.metrics import Metrics
from app.telemetry.reporter import LogReporter
from app.web.health import Readiness
from app.wiring.listeners import own_listener, start_own
from app.wiring.loops import Work, start_loops
from app.wiring.stores import (
    VERSION,
    Stores,
    open_stores,
)

WATCH_PACE: Final = Pace(idle_ms=1_000)


async def run_coordinator(settings: Settings, stopping: asyncio.Event) -> None:
    """Look after every bucket, shard by shard, until told to stop."""
    metrics = Metrics(role="coordinator", process="coordinator", version=VERSION)
    pace = Pace(idle_ms=settings.inventory.coordinator.pass_ms)
    async with contextlib.AsyncExitStack() as opened:
        stores = await opened.enter_async_context(open_stores(settings, metrics))
        steady_seconds = settings.inventory.coordinator.steady_ms / 1000
        server = BucketServer(stores.redis, stores.deployment, steady_seconds=steady_seconds)
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
                watch = Watch(shard, duties, stores.redis, stores.deployment, metrics)
                work: list[Work] = [
                    (f"coordinator {shard.index}", coordinator.coordinate_once, pace),
                    (f"watch {shard.index}", watch.watch_once, WATCH_PACE),
                ]
                start_loops(tasks, work, stopping)
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
        SELLING_SCRIPTS,
        inventory,
        LogReporter(),
    )
