from array import array
from collections import Counter

import pytest

from loadtest.bench.cpu import CpuReading
from loadtest.bench.job import Tally, merge
from loadtest.bench.measurement import measurement, spread
from loadtest.bench.pressure import recovery_seconds


def a_tally(seconds: float, **waits_ms: list[float]) -> Tally:
    return Tally(
        totals=Counter({name: len(waits) for name, waits in waits_ms.items()}),
        waits_ms={name: array("f", waits) for name, waits in waits_ms.items()},
        slots={name: Counter({0: len(waits)}) for name, waits in waits_ms.items()},
        seconds=seconds,
    )


def test_a_figure_counts_only_the_answers_it_is_named_for():
    cpu = CpuReading({"api": 0.6, "generator": 0.2}, busy=1.0)
    figure = measurement(
        "c", a_tally(2.0, placed=[1, 2, 3, 4], sold_out=[9]), cpu, counted="placed", generators=1
    )
    assert figure.per_second == 2.0
    assert figure.answers == {"placed": 4, "sold_out": 1}
    assert figure.cpu_us == pytest.approx({"api": 150_000, "generator": 50_000})
    assert figure.serving_cpu_us == pytest.approx(150_000)
    assert figure.cores["other"] == pytest.approx(0.1)
    assert (figure.numbers["p50_ms"], figure.numbers["max_ms"]) == (2.0, 4.0)


def test_processor_time_is_what_was_used_between_two_readings():
    later, earlier = CpuReading({"api": 5.0}, 9.0), CpuReading({"api": 3.5}, 7.0)
    assert later.since(earlier) == CpuReading({"api": 1.5}, 2.0)


def test_tallies_of_several_generators_become_one():
    whole = merge([a_tally(2.0, placed=[1.0]), a_tally(1.5, placed=[3.0], cut=[2.0])])
    assert whole.totals == {"placed": 2, "cut": 1}
    assert whole.slots["placed"] == {0: 2}
    assert whole.count("placed") == 2
    assert whole.seconds == 2.0


def test_rounds_are_summed_up_by_median_and_range():
    summed = spread([3.0, 1.0, 9.0])
    assert (summed.median, summed.least, summed.most) == (3.0, 1.0, 9.0)


@pytest.mark.parametrize(
    ("slots", "seconds"),
    [
        ([9, 9, 9, 9, 9, 9, 9, 9, 9, 9], 0.0),
        ([0, 0, 9, 9, 9, 9, 9, 9, 9, 9], 0.2),
        ([9, 0, 9, 0, 9, 0, 9, 0, 9, 0], 1.0),
    ],
)
def test_recovery_is_the_start_of_the_first_good_half_second(slots, seconds):
    tally = Tally(slots={"placed": Counter({10 + at: n for at, n in enumerate(slots)})}, seconds=2)
    assert recovery_seconds(tally, "placed", since=1.0, per_second=80) == seconds
