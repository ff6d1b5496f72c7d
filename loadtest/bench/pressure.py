"""The variants with shoppers of their own mind: open loop, overload, and what a refusal costs."""

import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from loadtest.bench.job import SLOTS_PER_SECOND, Job, OpenLoop, Tally, Timetable
from loadtest.bench.measurement import measurement, waits
from loadtest.bench.rig import WARM_SECONDS, Rig, audited
from loadtest.bench.stand import Stand
from loadtest.bench.variants import FASTER_THAN_BARE, closed_loop, unknown_of
from loadtest.bench.wire import CONFIRMED, GAVE_UP, PLACED
from loadtest.figures import percentile

OPEN_CONNECTIONS: Final = 512  # so many shoppers may wait at once before one waits for a line
WAIT_EVERY: Final = 20  # one click in so many asks for its row
OVERLOADS: Final = (2, 5)
RECOVERED_SHARE: Final = 0.9  # of the goodput before, over half a second
BACKLOG_FULL: Final = "backlog_full"
SMALL_BACKLOG: Final[Mapping[str, str]] = {
    "DOORBUSTER_INVENTORY__COORDINATOR_RECOVERY_BACKLOG_ORDERS_MAX": "1000",
}
FILL_CLICKS: Final = 4_000  # twice what both buckets may keep unflushed
_STEADY_SLOTS: Final = SLOTS_PER_SECOND // 2


async def measure_open_loop(rig: Rig, stand: Stand) -> None:
    """Measure (f): clicks at half the rate of (c), counted from the planned instant."""
    per_second = rig.rate_of("c") / 2
    seconds = 2 * rig.options.seconds
    count = int(1.2 * per_second * (seconds + WARM_SECONDS)) + 2_000
    sale = await stand.open_sale(stock=2 * count)
    job = Job(
        port=stand.port,
        connections=OPEN_CONNECTIONS,
        pace=OpenLoop(per_second),
        deck=stand.deck(sale, count, wait_every=WAIT_EVERY),
        warm_seconds=WARM_SECONDS,
        seconds=seconds,
    )
    calls = await stand.script_calls()
    tally, cpu = await rig.load(job, stand.processes)
    placed = tally.totals[PLACED] + tally.totals[CONFIRMED]
    figure = measurement(
        "f",
        tally,
        cpu,
        counted=PLACED,
        generators=rig.options.generators,
        numbers={
            "planned_per_second": per_second,
            "orders_per_call": placed / (await stand.script_calls() - calls),
            **waits(tally, CONFIRMED, "row_"),
            "sent_late_p99_ms": percentile(sorted(tally.sent_late_ms) or [0.0], 0.99),
        },
    )
    rig.note(await audited(stand, sale, figure, placed, unknown_of(tally.totals)))


async def measure_overload(rig: Rig, stand: Stand) -> None:
    """Measure (g): as many shoppers as saturate the service, then more, then as before."""
    calm = await _measure_crowd(rig, stand, 1, 0.0)
    for factor in OVERLOADS:
        await _measure_crowd(rig, stand, factor, calm)


async def measure_refusal(rig: Rig) -> None:
    """Measure what a refusal costs: the worker stands still, and the backlog is full."""
    count = FASTER_THAN_BARE * rig.clicks_for(rig.options.seconds)
    async with rig.stand(SMALL_BACKLOG) as stand:
        sale = await stand.open_sale(stock=2 * count)
        stand.signal_worker(signal.SIGSTOP)
        try:
            filling = closed_loop(rig, stand.port, stand.deck(sale, FILL_CLICKS), 0.0)
            filled, _ = await rig.load(replace(filling, warm_seconds=0.0), stand.processes)
            job = closed_loop(rig, stand.port, stand.deck(sale, count, first=FILL_CLICKS))
            tally, cpu = await rig.load(job, stand.processes)
        finally:
            stand.signal_worker(signal.SIGCONT)
        generators = rig.options.generators
        figure = measurement("g0", tally, cpu, counted=BACKLOG_FULL, generators=generators)
        totals = filled.totals + tally.totals
        rig.note(await audited(stand, sale, figure, totals[PLACED], unknown_of(totals)))


async def _measure_crowd(rig: Rig, stand: Stand, factor: int, calm: float) -> float:
    """
    Let so many times the saturating number of shoppers click; then all but the first leave.

    Args:
        rig: keeps the figure.
        stand: the service.
        factor: 1: nobody leaves.
        calm: the goodput of factor 1.

    Returns:
        Accepted orders a second, in time, while all were there.
    """
    options, saturated = rig.options, rig.rate_of("c")
    seconds = options.seconds if factor == 1 else 2 * options.seconds
    count = rig.clicks_for(seconds, than="c")
    sale = await stand.open_sale(stock=2 * count)
    job = Job(
        port=stand.port,
        connections=factor * options.connections,
        pace=Timetable(
            interval_seconds=options.connections / max(saturated, 1.0),
            stay=0 if factor == 1 else options.connections,
            surge_seconds=options.seconds,
        ),
        deck=stand.deck(sale, count),
        warm_seconds=WARM_SECONDS,
        seconds=seconds,
    )
    tally, cpu = await rig.load(job, stand.processes)
    goodput = tally.per_second(PLACED, 0.0, options.seconds)
    numbers = {
        "goodput_share": goodput / max(saturated, calm, 1.0),
        "gave_up": float(tally.totals[GAVE_UP]),
    }
    if factor > 1:
        good = RECOVERED_SHARE * calm
        numbers["recovery_seconds"] = recovery_seconds(tally, PLACED, options.seconds, good)
    figure = measurement(
        f"g{factor}",
        tally,
        cpu,
        counted=PLACED,
        generators=options.generators,
        numbers=numbers,
    )
    unknown = unknown_of(tally.totals)
    rig.note(await audited(stand, sale, figure, tally.totals[PLACED], unknown))
    return goodput


def recovery_seconds(tally: Tally, name: str, since: float, per_second: float) -> float:
    """
    Tell how long after `since` the rate was good again for half a second.

    Args:
        tally: of the whole window.
        name: of the answers.
        since: seconds from the start of the window.
        per_second: what is good.

    Returns:
        Seconds; the rest of the window when it never was.
    """
    slots = [
        tally.slots.get(name, Counter())[slot]
        for slot in range(round(since * SLOTS_PER_SECOND), round(tally.seconds * SLOTS_PER_SECOND))
    ]
    good = per_second / SLOTS_PER_SECOND * _STEADY_SLOTS
    for first in range(len(slots) - _STEADY_SLOTS + 1):
        if sum(slots[first : first + _STEADY_SLOTS]) >= good:
            return first / SLOTS_PER_SECOND
    return len(slots) / SLOTS_PER_SECOND
