"""
The speed targets (design, hot path §8) and how a run stands against them. Pure.

Every ratio is made within one round and then summed up over the rounds, so that
a machine that slows down between two rounds does not bend it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from loadtest.bench.measurement import CEILING, SATURATED_CORES, Measurement, Spread, spread

CEILING_FACTOR_MIN: Final = 1.25  # how much faster than the bare server a generator must be
BUSY_CORES_MAX: Final = 0.1  # of the machine, by others: more bends every figure

Rounds: TypeAlias = Sequence[Measurement]
Judging: TypeAlias = Callable[[Rounds], list[float]]


class Standing(StrEnum):
    """How a figure stands against its target."""

    AIM = "aim reached"
    MUST = "must reached"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Target:
    """
    One row of the table.

    Attributes:
        must, aim: the figure to reach, at least or at most.
        is_ratio: worth nothing when the generator was saturated.
    """

    name: str
    must: float
    aim: float
    values: Judging
    unit: str = ""
    at_most: bool = False
    is_ratio: bool = True

    def standing(self, value: float) -> Standing:
        """Say which of the two a value reaches."""
        sign = -1 if self.at_most else 1
        if sign * value >= sign * self.aim:
            return Standing.AIM
        return Standing.MUST if sign * value >= sign * self.must else Standing.MISSED


@dataclass(frozen=True, slots=True)
class Judged:
    """A target and what a run came to."""

    target: Target
    reached: Spread
    standing: Standing


def rate_ratio(variant: str, to: str) -> Judging:
    """Compare the rates of two variants, round by round."""
    return lambda done: [
        one.per_second / other.per_second
        for one, other in _pairs(done, variant, to)
        if other.per_second
    ]


def number(variant: str, name: str) -> Judging:
    """Take a number that a variant measured itself."""
    return lambda done: [
        one.numbers[name] for one in done if one.variant == variant and name in one.numbers
    ]


TARGETS: Final = (
    Target("accepted ÷ bare", 0.45, 0.60, rate_ratio("c", "a")),
    Target("accepted ÷ per request", 2.5, 4.0, rate_ratio("c", "b")),
    Target("sold out ÷ bare", 0.60, 0.75, rate_ratio("d", "a")),
)


def judge_targets(done: Rounds) -> list[Judged]:
    """Judge every target that the run has measured; ratios only if they are worth something."""
    void = bool(reasons_void(done))
    judged = []
    for target in TARGETS:
        values = [] if void and target.is_ratio else target.values(done)
        if values:
            reached = spread(values)
            judged.append(Judged(target, reached, target.standing(reached.median)))
    return judged


def reasons_void(done: Rounds) -> list[str]:
    """
    Say why the ratios of a run are worth nothing.

    A generator that works all the time, or whose own ceiling is hardly above what was
    measured with it, has measured itself.
    """
    reasons = [
        f"round {one.round}: the generator was saturated in {one.variant} "
        f"({one.generator_cores:.2f} cores)"
        for one in done
        if one.variant != CEILING and one.generator_cores >= SATURATED_CORES
    ]
    ceilings = [one.per_second for one in done if one.variant == CEILING]
    fastest = max((one.per_second for one in done if one.variant != CEILING), default=0.0)
    if ceilings and max(ceilings) < CEILING_FACTOR_MIN * fastest:
        reasons.append(
            f"the generator's ceiling ({max(ceilings):,.0f}/s) is hardly above "
            f"what was measured with it ({fastest:,.0f}/s)"
        )
    return reasons


def busy_cores(done: Rounds) -> float:
    """Tell how many cores others used, in the worst case."""
    return max((one.cores["other"] for one in done), default=0.0)


def _pairs(done: Rounds, variant: str, to: str) -> Iterator[tuple[Measurement, Measurement]]:
    others = {one.round: one for one in done if one.variant == to}
    for one in done:
        if one.variant == variant and one.round in others:
            yield one, others[one.round]
