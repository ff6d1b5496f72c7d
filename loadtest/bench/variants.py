"""The variants with a closed loop: bare, per request, the service, sold out, replays."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from loadtest.bench.deck import Deck
from loadtest.bench.job import ClosedLoop, Job, Tally
from loadtest.bench.measurement import Measurement, measurement
from loadtest.bench.rig import WARM_SECONDS, Rig, audited
from loadtest.bench.stand import OpenSale, Stand, running_rival
from loadtest.bench.wire import PLACED, REPLAY
from loadtest.tokens import Signer

# The same service, told not to gather clicks: one script call each, over as many
# connections as a bucket may have. The flusher takes more of the small entries at
# once, so that the worker is no poorer for them.
PER_REQUEST: Final[Mapping[str, str]] = {
    "DOORBUSTER_ORDERS__PLACEMENT_BATCH_ORDERS_MAX": "1",
    "DOORBUSTER_ORDERS__PLACEMENT_CALLS_AT_ONCE_MAX": "16",
    "DOORBUSTER_ORDERS__FLUSHER_ENTRIES_MAX": "1000",
}
SOLD_OUT: Final = "sold_out"
RIVAL_CLICKS: Final = 20_000  # sent again and again: nobody there remembers
REPLAYED_ORDERS: Final = 20_000
_RIVAL_KEY: Final = Signer("bench", bytes(32))


async def measure_ceiling(rig: Rig) -> None:
    """Measure what the generators can send at most, to a server that does nothing."""
    processes = rig.options.generators
    async with running_rival("trivial", processes) as (port, pids):
        tally, cpu = await rig.load(_job(rig, port, _rival_deck(port)), {"rival": pids})
    figure = measurement("ceiling", tally, cpu, counted=PLACED, generators=processes)
    rig.ceiling_per_second = figure.per_second
    rig.done.append(figure)


async def measure_bare(rig: Rig) -> None:
    """(a) One POST route of `web.Application`: the ceiling of any aiohttp service."""
    async with running_rival("bare", rig.options.api_processes) as (port, pids):
        tally, cpu = await rig.load(_job(rig, port, _rival_deck(port)), {"api": pids})
    rig.done.append(_figure(rig, "a", tally, cpu_counted=(cpu, PLACED)))


async def measure_per_request(rig: Rig) -> None:
    """(b) The same service, one script call per click."""
    async with rig.stand(PER_REQUEST) as stand:
        await measure_selling(rig, stand, "b")


async def measure_selling(rig: Rig, stand: Stand, variant: str) -> "Sold":
    """Sell as fast as answers come, every check on, rows written meanwhile; then audit."""
    count = rig.clicks_for(rig.options.seconds)
    sale = await stand.open_sale(stock=2 * count)
    job = _job(rig, stand.port, stand.deck(sale, count))
    tally, cpu = await rig.load(job, stand.processes)
    backlog = await stand.backlog()
    drain_seconds = await stand.drain()
    figure = measurement(
        variant,
        tally,
        cpu,
        counted=PLACED,
        generators=rig.options.generators,
        numbers={"backlog_orders": backlog, "drain_seconds": drain_seconds},
    )
    placed = tally.totals[PLACED]
    rig.done.append(await audited(stand, sale, figure, placed))
    return Sold(sale, placed)
