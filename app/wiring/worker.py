"""The worker: flush, close, move, enquire, refund, post."""

import asyncio
import contextlib
from functools import partial
from typing import Final

from app.inventory.mover import Mover
from app.kernel.loop import Pace
from app.orders.closer import Closer
from app.orders.flusher import Flusher
from app.orders.tally import FlushTally
from app.payments.enquiry import enquire_once
from app.payments.expiry import settle_attempts
from app.payments.letters import retry_callbacks_once
from app.payments.refunds import send_refunds_once
from app.payments.stage import PaymentStage
from app.settings import Settings
from app.settlement.poster import post_once
from app.storage.duties import Duties
from app.storage.shards import Shard
from app.telemetry.lag import measure_lag
from app.telemetry.metrics import Metrics
from app.web.health import Readiness
from app.wiring.listeners import own_listener, start_own
from app.wiring.loops import Work, start_loops
from app.wiring.stores import (
    VERSION,
    Stores,
    open_payments,
    open_stores,
)

# A worker that found nothing looks again this often; the flusher waits inside its read.
FLUSH_PACE: Final = Pace(idle_ms=20)
WORK_PACE: Final = Pace(idle_ms=200)
LEDGER_PACE: Final = Pace(idle_ms=100)
RETRY_PACE: Final = Pace(idle_ms=1_000)  # what an operator asks for by hand


async def run_worker(settings: Settings, stopping: asyncio.Event) -> None:
    """Flush, close, move, enquire, refund and post until told to stop."""
    metrics = Metrics(role="worker", process="worker", version=VERSION)
    async with contextlib.AsyncExitStack() as opened:
        stores = await opened.enter_async_context(open_stores(settings, metrics))
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
        ("callback letters", partial(retry_callbacks_once, stage), RETRY_PACE),
    ]
