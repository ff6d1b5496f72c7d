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

CEILING_FACTOR_MIN: Final = 1.25  # how much more a generator must be able to send
BUSY_CORES_MAX: Final = 0.2  # of the machine, by others: more bends every figure

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
    """

    name: str
    must: float
    aim: float
    values: Judging
    unit: str = ""
    at_most: bool = False

    @property
    def is_ratio(self) -> bool:
        """Whether it is worth nothing when the generator was saturated."""
        return not self.unit

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


def rate(variant: str) -> Judging:
    """Take the rate of a variant as it is."""
    return lambda done: [one.per_second for one in done if one.variant == variant]


def number(variant: str, name: str) -> Judging:
    """Take a number that a variant measured itself."""
    return lambda done: [
        one.numbers[name] for one in done if one.variant == variant and name in one.numbers
    ]


def cost_ratio(variant: str, to: str) -> Judging:
    """Compare what an answer of two variants costs the service, round by round."""
    return lambda done: [
        one.serving_cpu_us / other.serving_cpu_us
        for one, other in _pairs(done, variant, to)
        if other.serving_cpu_us
    ]


def growth_ratio(done: Rounds) -> list[float]:
    """Compare the cost of an order in the fullest sale with that at ten thousand."""
    sizes = sorted({int(one.variant[1:]) for one in done if one.variant.startswith("i")})
    return cost_ratio(f"i{sizes[-1]}", f"i{sizes[0]}")(done) if len(sizes) > 1 else []


_ROW: Final = "p99 click to row at half the rate"
TARGETS: Final = (
    Target("accepted ÷ bare", 0.45, 0.60, rate_ratio("c", "a")),
    Target("durable ÷ bare", 0.40, 0.55, rate_ratio("durable", "a")),
    Target(
        "backlog growth ÷ accepted",
        0.01,
        0.0,
        number("durable", "backlog_growth_share"),
        at_most=True,
    ),
    Target("accepted ÷ per request", 2.5, 4.0, rate_ratio("c", "b")),
    Target("sold out ÷ bare", 0.60, 0.75, rate_ratio("d", "a")),
    Target("p99 click to 202 at half the rate", 20, 8, number("f", "p99_ms"), " ms", at_most=True),
    Target(_ROW, 150, 60, number("f", "row_p99_ms"), " ms", at_most=True),
    Target("drain of 100 000 orders", 5, 2, number("h", "drain_100k_seconds"), " s", at_most=True),
    Target(
        "memory of an unflushed order",
        260,
        210,
        number("h", "unflushed_bytes"),
        " B",
        at_most=True,
    ),
    Target("after the trim", 170, 120, number("h", "trimmed_bytes"), " B", at_most=True),
    Target("goodput of 2 x the shoppers", 0.90, 0.97, number("g2", "goodput_share")),
    Target("goodput of 5 x the shoppers", 0.90, 0.97, number("g5", "goodput_share")),
    Target("cpu of a refusal ÷ an accepted order", 0.50, 0.35, cost_ratio("g0", "c"), at_most=True),
    Target("callbacks committed, HMAC", 2_000, 3_000, rate("k"), " /s"),
    Target("callbacks committed, RSA", 2_000, 3_000, rate("kw"), " /s"),
    Target("cost of an order, fullest ÷ 10 000", 1.2, 1.0, growth_ratio, at_most=True),
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

    A generator that works all the time, or could hardly send more than was measured
    with it, has measured itself.
    """
    reasons = [
        f"round {one.round}: the generator was saturated in {one.variant} "
        f"({one.generator_cores:.2f} cores)"
        for one in done
        if one.variant != CEILING and one.generator_cores >= SATURATED_CORES
    ]
    capacity = max(map(_capacity, (one for one in done if one.variant == CEILING)), default=0.0)
    fastest = max((one.per_second for one in done if one.variant != CEILING), default=0.0)
    if capacity < CEILING_FACTOR_MIN * fastest:
        reasons.append(
            f"a generator with a core to itself sends {capacity:,.0f}/s, "
            f"hardly more than was measured with it ({fastest:,.0f}/s)"
        )
    return reasons


def _capacity(ceiling: Measurement) -> float:
    """Tell what the generators send with a core each, from what a click costs them."""
    cost_us = ceiling.cpu_us["generator"]
    return ceiling.generators * 1e6 / cost_us if cost_us else 0.0


def busy_cores(done: Rounds) -> float:
    """Tell how many cores others used, in the worst case."""
    return max((one.cores["other"] for one in done), default=0.0)


def _pairs(done: Rounds, variant: str, to: str) -> Iterator[tuple[Measurement, Measurement]]:
    others = {one.round: one for one in done if one.variant == to}
    for one in done:
        if one.variant == variant and one.round in others:
            yield one, others[one.round]
