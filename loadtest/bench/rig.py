"""What all variants share: the generators, the options, and how a load is weighed."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from app.kernel.equation import Equation
from loadtest.bench.cpu import CpuReading, read_cpu
from loadtest.bench.generator import Generators
from loadtest.bench.job import Job, Tally
from loadtest.bench.measurement import CEILING, Measurement
from loadtest.bench.stand import PLAYED_OUT, NotMeasured, OpenSale, Stand, running_stand

WARM_SECONDS: Final = 1.0
CLICKS_FACTOR: Final = 1.5  # rounds differ; a click prepared costs 8 us and 700 bytes
CLICKS_MIN: Final = 20_000

_NO_SETTINGS: Final[Mapping[str, str]] = {}


def _say_nothing(_: Measurement) -> None:
    """Stand in until somebody listens."""


async def _nothing_else() -> None:
    """Most loads are not watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """
    How much is measured.

    Attributes:
        only: names of the variants.
        seconds: of one measured window.
        durable_seconds: of the window with an append-only file rewritten in it.
        rounds: how often each variant has its turn.
        long_rounds: how often overload, durable and burst have; the sale that grows has one.
        connections: of the closed loop.
        api_processes: of the service, and of the bare application.
        generators: processes that make the load.
        burst_orders: accepted while the worker is stopped.
        callbacks: that pay an order each, for each kind of signature.
        growth_orders: in one sale at which the cost of an order is measured.
    """

    only: frozenset[str]
    seconds: float
    durable_seconds: float
    rounds: int
    long_rounds: int
    connections: int
    api_processes: int
    generators: int
    burst_orders: int
    callbacks: int
    growth_orders: tuple[int, ...]


@dataclass(slots=True)
class Rig:
    """
    Everything a variant needs to measure itself.

    Attributes:
        round: the present one, from 1.
        done: what has been measured so far.
        not_measured: which variants came to no figure, and why.
        say: told of each figure.
    """

    options: BenchOptions
    generators: Generators
    round: int = 0
    done: list[Measurement] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)
    say: Callable[[Measurement], None] = _say_nothing

    async def load(
        self,
        job: Job,
        processes: Mapping[str, Sequence[int]],
        watch: Callable[[], Awaitable[None]] = _nothing_else,
    ) -> tuple[Tally, CpuReading]:
        """
        Play a job and weigh every process during its window.

        Args:
            job: what to send.
            processes: what to weigh, by group.
            watch: begun with the window; must end with it.

        Raises:
            NotMeasured: the clicks prepared did not last for the window.
        """
        groups = {**processes, "generator": self.generators.pids}
        readings: list[CpuReading] = []

        async def weigh() -> None:
            await asyncio.sleep(job.warm_seconds)
            readings.append(read_cpu(groups))
            if job.seconds:
                await asyncio.gather(asyncio.sleep(job.seconds), watch())
                readings.append(read_cpu(groups))

        tally = await self.generators.play(job, weigh)
        readings.append(read_cpu(groups))
        if tally.is_played_out and job.seconds:
            raise NotMeasured(PLAYED_OUT, connections=job.connections, seconds=job.seconds)
        return tally, readings[1].since(readings[0])

    def clicks_for(self, seconds: float, than: str = "a") -> int:
        """
        Say how many clicks to prepare: more than can be answered in that time.

        Args:
            seconds: how long.
            than: a variant that answers about as fast, or faster; the generators'
                ceiling is taken when it was not measured.
        """
        known = self.of(than) or self.of("a") or self.of(CEILING)
        fastest = max(one.per_second for one in known)
        return int(CLICKS_FACTOR * fastest * (seconds + WARM_SECONDS)) + CLICKS_MIN

    @asynccontextmanager
    async def stand(self, settings: Mapping[str, str] = _NO_SETTINGS) -> AsyncGenerator[Stand]:
        """Start a fresh service for as long as the block runs."""
        with tempfile.TemporaryDirectory(prefix="doorbuster-bench-") as folder:
            async with running_stand(Path(folder), self.options.api_processes, settings) as stand:
                yield stand

    def note(self, figure: Measurement) -> None:
        """Keep a figure of this round, and tell it."""
        kept = replace(figure, round=self.round)
        self.done.append(kept)
        self.say(kept)

    def rate_of(self, variant: str) -> float:
        """Give the newest rate of a variant; 0 when it was not measured."""
        return next((one.per_second for one in reversed(self.done) if one.variant == variant), 0.0)

    def of(self, variant: str) -> list[Measurement]:
        """Give the rounds of one variant so far."""
        return [one for one in self.done if one.variant == variant]


async def audited(
    stand: Stand, sale: OpenSale, figure: Measurement, placed: int, unknown: int = 0
) -> Measurement:
    """Judge the books after a variant has sold; what is broken stands beside its figure."""
    broken = await stand.audit(sale, placed, unknown)
    return replace(figure, broken=in_words(broken), is_audited=True)


def in_words(broken: Sequence[Equation]) -> list[str]:
    """Write equations that do not hold for people."""
    return [
        f"{one.invariant} {one.subject}: {one.left} {one.left_value}, {one.right} {one.right_value}"
        for one in broken
    ]
