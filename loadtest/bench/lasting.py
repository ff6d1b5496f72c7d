"""
The variants that last: rows with the log rewritten, a burst that drains, a sale that grows.

What is measured of a sale that grows is sold over HTTP; the hundreds of thousands of orders that
only have to stand there before are fed to the service's own script (`feed.py`).
"""

import asyncio
import signal
import time
from dataclasses import dataclass, field, replace
from typing import Final

from loadtest.bench.feed import Feed, feeding
from loadtest.bench.job import ClosedLoop, Job, Tally
from loadtest.bench.measurement import Measurement, measurement
from loadtest.bench.rig import Rig, audited
from loadtest.bench.stand import OpenSale, Stand
from loadtest.bench.variants import closed_loop, unknown_of
from loadtest.bench.wire import PLACED

FED_AT_ONCE_MAX: Final = 100_000  # then the flush catches up, before the backlog is full
GROWTH_SPAN_ORDERS: Final = 20_000  # over which the cost of an order is measured
_LOOK_SECONDS: Final = 0.5
_CLOSE_LOOK_SECONDS: Final = 0.01


@dataclass(slots=True)
class _Watch:
    """What was seen of a sale while it sold: instants, rows, backlog."""

    stand: Stand
    sale: OpenSale
    seconds: float
    looks: list[tuple[float, int, int]] = field(default_factory=list)
    rewrite_seconds: float = 0.0

    async def __call__(self) -> None:
        rewriting = asyncio.create_task(self._rewrite_midway())
        until = time.monotonic() + self.seconds
        await self._look()
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(_LOOK_SECONDS, left))
            await self._look()
        await rewriting

    async def _look(self) -> None:
        rows, backlog = await asyncio.gather(self.stand.rows(self.sale), self.stand.backlog())
        self.looks.append((time.monotonic(), rows, backlog))

    async def _rewrite_midway(self) -> None:
        await asyncio.sleep(self.seconds / 3)
        self.rewrite_seconds = await self.stand.rewrite_log()

    @property
    def rows_per_second(self) -> float:
        (began, before, _), (ended, after, _) = self.looks[0], self.looks[-1]
        return (after - before) / (ended - began)

    @property
    def backlog_growth_per_second(self) -> float:
        """Compare the mean backlog of the last third with that of the second one."""
        third = len(self.looks) // 3
        middle, last = self.looks[third : 2 * third], self.looks[2 * third :]
        if not middle:
            return 0.0
        elapsed = _mean([at for at, _, _ in last]) - _mean([at for at, _, _ in middle])
        growth = _mean([one for _, _, one in last]) - _mean([one for _, _, one in middle])
        return growth / elapsed


async def measure_durable(rig: Rig) -> None:
    """Measure rows committed while the service sells all it can and its log is rewritten."""
    seconds = rig.options.durable_seconds
    async with rig.stand() as stand:
        count = rig.clicks_for(seconds, than="c")
        sale = await stand.open_sale(stock=2 * count)
        watch = _Watch(stand, sale, seconds)
        job = closed_loop(rig, stand.port, stand.deck(sale, count), seconds)
        tally, cpu = await rig.load(job, stand.processes, watch)
        drain_seconds = await stand.drain()
        accepted = tally.count(PLACED) / tally.seconds
        figure = measurement(
            "durable",
            tally,
            cpu,
            counted=PLACED,
            generators=rig.options.generators,
            numbers={
                "accepted_per_second": accepted,
                "backlog_growth_share": watch.backlog_growth_per_second / max(accepted, 1.0),
                "backlog_max_orders": max(backlog for _, _, backlog in watch.looks),
                "rewrite_seconds": watch.rewrite_seconds,
                "drain_seconds": drain_seconds,
            },
        )
        figure = replace(figure, per_second=watch.rows_per_second, counted="rows")
        placed = tally.totals[PLACED]
        rig.note(await audited(stand, sale, figure, placed, unknown_of(tally.totals)))


async def measure_burst(rig: Rig) -> None:
    """Measure (h): accept orders while no worker runs, then start one; weigh what Valkey keeps."""
    orders = rig.options.burst_orders
    async with rig.stand() as stand:
        sale = await stand.open_sale(stock=2 * orders)
        empty = await stand.memory_bytes()
        stand.signal_worker(signal.SIGSTOP)
        tally, figure = await _sell(rig, stand, sale, "h", 0, orders)
        placed = tally.totals[PLACED]
        full = await stand.memory_bytes()
        started_seconds, drain_seconds = await _drain_with_new_worker(stand, sale)
        trimmed = await stand.memory_bytes()
        numbers = {
            "drain_seconds": drain_seconds,
            "drain_100k_seconds": drain_seconds * 100_000 / placed,
            "worker_start_seconds": started_seconds,
            "unflushed_bytes": (full - empty) / placed,
            "trimmed_bytes": (trimmed - empty) / placed,
        }
        figure = replace(figure, numbers={**figure.numbers, **numbers})
        rig.note(await audited(stand, sale, figure, placed, unknown_of(tally.totals)))


async def _drain_with_new_worker(stand: Stand, sale: OpenSale) -> tuple[float, float]:
    """
    End the worker that stands still; its supervisor starts a new one.

    Returns:
        Seconds until the first row, and from there until every order has its row.
    """
    began = time.monotonic()
    stand.signal_worker(signal.SIGKILL)
    before = await stand.rows(sale)
    while await stand.rows(sale) == before:  # noqa: ASYNC110  another process's doing
        await asyncio.sleep(_CLOSE_LOOK_SECONDS)
    started = time.monotonic()
    await stand.drain()
    return started - began, time.monotonic() - started


async def measure_growth(rig: Rig) -> None:
    """Measure (i): what an order costs when so many stand in the sale already."""
    async with rig.stand() as stand:
        last = rig.options.growth_orders[-1]
        sale = await stand.open_sale(stock=2 * (last + GROWTH_SPAN_ORDERS) + 100_000)
        empty = await stand.memory_bytes()
        placed = unknown = clicks = 0
        async with feeding(stand, sale) as feed:
            for size in rig.options.growth_orders:
                fill_seconds = await _fill(stand, feed, size - placed)
                placed = size
                rewrite_seconds = await stand.rewrite_log()
                trimmed_bytes = (await stand.memory_bytes() - empty) / placed
                tally, figure = await _sell(
                    rig, stand, sale, f"i{size}", clicks, GROWTH_SPAN_ORDERS
                )
                clicks += GROWTH_SPAN_ORDERS
                placed += tally.totals[PLACED]
                unknown += unknown_of(tally.totals)
                await stand.drain()
                numbers = {
                    "trimmed_bytes": trimmed_bytes,
                    "rewrite_seconds": rewrite_seconds,
                    "fill_seconds": fill_seconds,
                }
                figure = replace(figure, numbers={**figure.numbers, **numbers})
                rig.note(await audited(stand, sale, figure, placed, unknown))


async def _fill(stand: Stand, feed: Feed, count: int) -> float:
    """Feed so many orders and wait for their rows; tell how long that took."""
    began = time.monotonic()
    while count > 0:
        some = min(FED_AT_ONCE_MAX, count)
        await feed.sell(some)
        await stand.drain()
        count -= some
    return time.monotonic() - began


async def _sell(  # noqa: PLR0913, PLR0917  what is sold, and under which name
    rig: Rig, stand: Stand, sale: OpenSale, variant: str, first: int, count: int
) -> tuple[Tally, Measurement]:
    """Send so many clicks as fast as they are answered, measured from the first to the last."""
    job = Job(
        port=stand.port,
        connections=rig.options.connections,
        pace=ClosedLoop(),
        deck=stand.deck(sale, count, first=first),
    )
    tally, cpu = await rig.load(job, stand.processes)
    generators = rig.options.generators
    return tally, measurement(variant, tally, cpu, counted=PLACED, generators=generators)


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / len(values)
