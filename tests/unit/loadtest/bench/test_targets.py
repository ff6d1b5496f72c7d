import pytest

from loadtest.bench.measurement import CEILING, Measurement
from loadtest.bench.targets import Standing, judge_targets, reasons_void


def a_figure(variant: str, per_second: float, number: int = 1, **more) -> Measurement:
    given = {
        "counted": "placed",
        "seconds": 1.0,
        "answers": {},
        "cpu_us": {"api": 10.0, "generator": 10.0},
        "cores": {"other": 0.0},
        "generator_cores": 0.4,
    }
    return Measurement(variant=variant, per_second=per_second, round=number, **{**given, **more})


def standings(*done: Measurement) -> dict[str, Standing]:
    return {one.target.name: one.standing for one in judge_targets(done)}


@pytest.mark.parametrize(
    ("accepted", "standing"),
    [(61.0, Standing.AIM), (50.0, Standing.MUST), (44.0, Standing.MISSED)],
)
def test_a_ratio_is_made_against_the_bare_application(accepted, standing):
    done = a_figure(CEILING, 900), a_figure("a", 100), a_figure("c", accepted)
    assert standings(*done)["accepted ÷ bare"] is standing


def test_ratios_pair_the_figures_of_one_round():
    slow_machine = a_figure("a", 10, 2), a_figure("c", 6, 2)
    done = a_figure(CEILING, 900), a_figure("a", 100), a_figure("c", 60), *slow_machine
    (judged,) = judge_targets(done)
    assert (judged.reached.least, judged.reached.most) == (0.6, 0.6)


def test_what_must_be_small_is_judged_the_other_way_round():
    waits = {"p99_ms": 19.0, "row_p99_ms": 20.0}
    told = standings(a_figure("f", 100, numbers=waits))
    assert told["p99 click to 202 at half the rate"] is Standing.MUST
    assert told["p99 click to row at half the rate"] is Standing.AIM


def test_no_ratio_is_told_when_the_generator_was_saturated():
    tired = a_figure("a", 100, generator_cores=0.95)
    done = a_figure(CEILING, 900), tired, a_figure("c", 60), a_figure("f", 9, numbers={"p99_ms": 1})
    assert reasons_void(done) == ["round 1: the generator was saturated in a (0.95 cores)"]
    assert list(standings(*done)) == ["p99 click to 202 at half the rate"]


def test_no_ratio_is_told_when_a_generator_could_hardly_have_sent_more():
    slow = {"api": 1.0, "generator": 9_000.0}  # 111 a second with a core to itself
    done = a_figure(CEILING, 50, cpu_us=slow), a_figure("a", 100), a_figure("c", 60)
    assert standings(*done) == {}


def test_growth_compares_the_fullest_sale_with_the_emptiest():
    done = [
        a_figure(CEILING, 900),
        a_figure("i10000", 9, cpu_us={"api": 10.0, "generator": 1.0}),
        a_figure("i100000", 9, cpu_us={"api": 99.0, "generator": 1.0}),
        a_figure("i1000000", 9, cpu_us={"api": 11.0, "generator": 9.0}),
    ]
    (judged,) = judge_targets(done)
    assert judged.reached.median == pytest.approx(1.1)
