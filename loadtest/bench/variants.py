"""The variants with a closed loop: bare, per request, the service, sold out, replays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.bench.deck import Deck
from loadtest.bench.job import ClosedLoop, Job
from loadtest.bench.measurement import CEILING, Measurement, measurement
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
FASTER_THAN_BARE: Final = 2  # at most: a refusal costs less than aiohttp's own way to one
RIVAL_CLICKS: Final = 20_000  # sent again and again: nobody there remembers
REPLAYED_MAX: Final = 20_000
_RIVALS_KEY: Final = Signer("0123abcd", bytes(32))  # as long as the service's own


@dataclass(frozen=True, slots=True)
class Sold:
    """A sale that was sold from: its first `placed` shoppers have an order each."""

    sale: OpenSale
    placed: int


async def measure_ceiling(rig: Rig) -> None:
    """Measure what the generators can send at most, to servers that do nothing."""
    rig.note(await _measure_rival(rig, CEILING, "trivial", rig.options.generators))


async def measure_bare(rig: Rig) -> None:
    """Measure (a), one POST route of `web.Application`: the ceiling of an aiohttp service."""
    rig.note(await _measure_rival(rig, "a", "bare", rig.options.api_processes))


async def measure_per_request(rig: Rig) -> None:
    """Measure (b), the same service, one script call per click."""
    async with rig.stand(PER_REQUEST) as stand:
        await measure_selling(rig, stand, "b")


async def measure_selling(rig: Rig, stand: Stand, variant: str = "c") -> Sold:
    """Measure (c): sell as fast as answers come, every check on, rows written meanwhile."""
    count = rig.clicks_for(rig.options.seconds)
    sale = await stand.open_sale(stock=2 * count)
    job = closed_loop(rig, stand.port, stand.deck(sale, count))
    calls = await stand.script_calls()
    tally, cpu = await rig.load(job, stand.processes)
    numbers = {
        "orders_per_call": tally.totals[PLACED] / (await stand.script_calls() - calls),
        "backlog_orders": float(await stand.backlog()),
        "drain_seconds": await stand.drain(),
    }
    figure = measurement(
        variant,
        tally,
        cpu,
        counted=PLACED,
        generators=rig.options.generators,
        numbers=numbers,
    )
    placed = tally.totals[PLACED]
    rig.note(await audited(stand, sale, figure, placed, unknown_of(tally.totals)))
    return Sold(sale, placed)


async def measure_sold_out(rig: Rig, stand: Stand) -> None:
    """Measure (d), shoppers who come too late, each for the first time."""
    sale = await stand.open_sale(stock=2)
    count = FASTER_THAN_BARE * rig.clicks_for(rig.options.seconds)
    job = closed_loop(rig, stand.port, stand.deck(sale, count))
    tally, cpu = await rig.load(job, stand.processes)
    generators = rig.options.generators
    figure = measurement("d", tally, cpu, counted=SOLD_OUT, generators=generators)
    rig.note(await audited(stand, sale, figure, tally.totals[PLACED]))


async def measure_replays(rig: Rig, stand: Stand, sold: Sold) -> None:
    """Measure (e), shoppers who have their order already, and send the same click again."""
    count = min(sold.placed, REPLAYED_MAX)
    job = closed_loop(rig, stand.port, stand.deck(sold.sale, count, again=True))
    tally, cpu = await rig.load(job, stand.processes)
    generators = rig.options.generators
    figure = measurement("e", tally, cpu, counted=REPLAY, generators=generators)
    placed = sold.placed + tally.totals[PLACED]
    rig.note(await audited(stand, sold.sale, figure, placed))


def closed_loop(rig: Rig, port: int, deck: Deck, seconds: float | None = None) -> Job:
    """Say how a closed loop is run."""
    return Job(
        port=port,
        connections=rig.options.connections,
        pace=ClosedLoop(),
        deck=deck,
        warm_seconds=WARM_SECONDS,
        seconds=rig.options.seconds if seconds is None else seconds,
    )


def unknown_of(totals: Mapping[str, int]) -> int:
    """Count clicks whose outcome nobody was told."""
    return sum(totals.get(name, 0) for name in ("cut", "gave_up", "unanswered", "outcome_unknown"))


async def _measure_rival(rig: Rig, variant: str, kind: str, processes: int) -> Measurement:
    async with running_rival(kind, processes) as (port, pids):
        deck = Deck(
            host=f"127.0.0.1:{port}",
            sale="bench-00000000",
            signer=_RIVALS_KEY,
            run="bench-00000000",
            count=RIVAL_CLICKS,
            again=True,
        )
        groups: dict[str, Sequence[int]] = {"api": pids}
        tally, cpu = await rig.load(closed_loop(rig, port, deck), groups)
    generators = rig.options.generators
    return measurement(variant, tally, cpu, counted=PLACED, generators=generators)
