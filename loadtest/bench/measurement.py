"""One figure of one round, and what several rounds come to. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.bench.cpu import CpuReading
from loadtest.bench.job import Tally
from loadtest.figures import percentile

CEILING: Final = "ceiling"  # the variant that measures the generators themselves
SATURATED_CORES: Final = 0.9  # a generator process that works so much could not have done more


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """
    What one variant did in one round.

    Attributes:
        variant: its name, "c".
        per_second: of what the variant counts.
        counted: what that is, "placed".
        seconds: how long was measured.
        answers: by name, in the window.
        cpu_us: processor microseconds per counted answer, by group of processes.
        cores: processor seconds per second, by group; `other` is none of ours.
        generators: how many processes made the load.
        generator_cores: used by each of them.
        numbers: what else the variant measured; the unit ends the name.
        round: counted from 1.
        broken: equations of the audit that do not hold, in words.
        is_audited: the audit was made.
    """

    variant: str
    per_second: float
    counted: str
    seconds: float
    answers: Mapping[str, int]
    cpu_us: Mapping[str, float]
    cores: Mapping[str, float]
    generator_cores: float
    generators: int = 1
    numbers: Mapping[str, float] = field(default_factory=dict)
    round: int = 0
    broken: Sequence[str] = ()
    is_audited: bool = False

    @property
    def whole_cpu_us(self) -> float:
        """Sum what a counted answer cost the machine, the generator's part included."""
        return sum(self.cpu_us.values())

    @property
    def serving_cpu_us(self) -> float:
        """The same without the generator."""
        return self.whole_cpu_us - self.cpu_us.get("generator", 0.0)


def measurement(  # noqa: PLR0913  each part is read where it arises
    variant: str,
    tally: Tally,
    cpu: CpuReading,
    *,
    counted: str,
    generators: int,
    numbers: Mapping[str, float] | None = None,
) -> Measurement:
    """Work one run of load out."""
    seconds = max(tally.seconds, 1e-9)
    count = max(1, tally.count(counted))
    ours = sum(cpu.used.values())
    cores = {name: used / seconds for name, used in cpu.used.items()}
    return Measurement(
        variant=variant,
        per_second=tally.count(counted) / seconds,
        counted=counted,
        seconds=seconds,
        answers={name: tally.count(name) for name in sorted(tally.waits_ms)},
        cpu_us={name: used / count * 1e6 for name, used in cpu.used.items()},
        cores={**cores, "other": max(0.0, cpu.busy - ours) / seconds},
        generator_cores=cores.get("generator", 0.0) / generators,
        generators=generators,
        numbers={**waits(tally, counted), **(numbers or {})},
    )


def waits(tally: Tally, name: str, prefix: str = "") -> dict[str, float]:
    """Give the percentiles of one kind of answer, in ms from the planned instant."""
    sorted_ms = sorted(tally.waits_ms.get(name, ()))
    if not sorted_ms:
        return {}
    return {
        f"{prefix}p50_ms": percentile(sorted_ms, 0.5),
        f"{prefix}p99_ms": percentile(sorted_ms, 0.99),
        f"{prefix}p999_ms": percentile(sorted_ms, 0.999),
        f"{prefix}max_ms": sorted_ms[-1],
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its range."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Sum rounds up; at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def spreads(measurements: Sequence[Measurement], name: str) -> Spread | None:
    """Sum one number of a variant's rounds up; None when no round has it."""
    values = [one.numbers[name] for one in measurements if name in one.numbers]
    return spread(values) if values else None
