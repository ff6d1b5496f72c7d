"""The worker: flush, close, move, enquire, refund, post."""

import asyncio
import contextlib
from functools import partial
from typing import Final

from redis.asyncio import Redis

from app.inventory.mover import Mover
from app.kernel.garbage import settle_garbage
from app.kernel.loop import Pace
from app.orders.closer import Closer
from app.orders.flusher import Flusher
from app.orders.groups.settling import GroupSettler
from app.orders.tally import FlushTally
from app.payments.enquiry import enquire_once
from app.payments.expiry import settle_attempts, unattempted
from app.payments.group_refunds import refund_members_once
from app.payments.letters import retry_callbacks_once
from app.payments.refunds import send_refunds_once
from app.payments.stage import PaymentStage
from app.settings import Settings, require
from app.settlement.poster import post_once
from app.storage.duties import Duties
from app.storage.redis import open_redis
from app.storage.shards import Shard
from app.telemetry.lag import measure_lag
from app.telemetry.metrics import Metrics
from app.web.health import Readiness
from app.wiring.fulfilment import fulfilment_of, fulfilment_work
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
    require(settings, "DOORBUSTER_FULFILMENT__DELIVERY_KEYS")
    metrics = Metrics(role="worker", process="worker", version=VERSION)
    async with contextlib.AsyncExitStack() as opened:
        stores = await opened.enter_async_context(open_stores(settings, metrics))
        stage = await opened.enter_async_context(open_payments(settings, stores, metrics))
        acts = fulfilment_of(settings, stores.shards, stage, metrics)
        await acts.addresses.check_keys()
        # Its own connections: a wave of returns must not hold up the flush.
        flush_redis = open_redis(settings.redis.url, client_name="doorbuster-flusher")
        opened.push_async_callback(flush_redis.aclose)
        readiness = Readiness()
        own = own_listener(settings, metrics, readiness)
        opened.push_async_callback(own.stop)
        async with asyncio.TaskGroup() as tasks:
            for shard in stores.shards.all:
                duties = Duties(shard)
                tasks.create_task(duties.keep(stopping))
                flusher = flusher_of(settings, stores, metrics, shard, duties, flush_redis)
                closer = closer_of(settings, stage, shard, duties)
                opened.push_async_callback(closer.close)
                mover = mover_of(settings, stores, shard, duties)
                settler = GroupSettler(shard, duties, settings.orders.groups)
                work: list[Work] = [
                    (f"flusher {shard.index}", flusher.flush_once, FLUSH_PACE),
                    (f"closer {shard.index}", closer.close_once, WORK_PACE),
                    (f"mover {shard.index}", mover.move_once, WORK_PACE),
                    (f"groups {shard.index}", settler.settle_groups_once, WORK_PACE),
                ]
                start_loops(tasks, work, stopping)
            start_loops(tasks, money_work(settings, stores, stage), stopping)
            start_loops(tasks, fulfilment_work(settings, acts), stopping)
            await start_own(own, settings)
            readiness.started = True
            settle_garbage()
            lag = tasks.create_task(measure_lag(metrics.loop_lag_seconds))
            await stopping.wait()
            lag.cancel()


def flusher_of(  # noqa: PLR0913, PLR0917  collaborators, each once
    settings: Settings,
    stores: Stores,
    metrics: Metrics,
    shard: Shard,
    duties: Duties,
    redis: Redis,
) -> Flusher:
    """Make the flusher of one shard."""
    tally = FlushTally(metrics)
    return Flusher(shard, duties, redis, stores.deployment, settings.orders.flusher, tally)


def closer_of(settings: Settings, stage: PaymentStage, shard: Shard, duties: Duties) -> Closer:
    """Make the closer of one shard; what it asks of payments is handed in here."""
    return Closer(
        shard,
        duties,
        partial(unattempted, stage),
        partial(settle_attempts, stage),
        settings.orders.closer,
    )


def mover_of(settings: Settings, stores: Stores, shard: Shard, duties: Duties) -> Mover:
    """Make the mover of one shard."""
    return Mover(
        shard,
        stores.shards,
        duties,
        stores.redis,
        stores.deployment,
        settings.inventory.mover,
    )


def money_work(settings: Settings, stores: Stores, stage: PaymentStage) -> list[Work]:
    """Return the loops that carry money on, over all shards."""

    async def post() -> int:
        report = await post_once(stores.shards, stores.ledger, settings.settlement)
        return report.facts_posted + report.facts_parked

    return [
        ("enquiry", partial(enquire_once, stage), WORK_PACE),
        ("group refunds", partial(refund_members_once, stage), WORK_PACE),
        ("refunds", partial(send_refunds_once, stage), WORK_PACE),
        ("ledger poster", post, LEDGER_PACE),
        ("callback letters", partial(retry_callbacks_once, stage), RETRY_PACE),
    ]
