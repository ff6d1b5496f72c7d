"""Equations are judged by both sides, and an audit by its worst equation."""

import json

import pytest

from app.kernel.equation import (
    EXAMPLES_MAX,
    Doubt,
    Relation,
    Verdict,
    at_most,
    equal,
    equations_as_json,
    none_of,
    unjudged,
    verdict_of,
)

HOLDS = equal("I1", "sale a", ("stock", 5), ("pool + granted", 5))
BROKEN = equal("I1", "sale a", ("stock", 5), ("pool + granted", 6))
SIDES = ("remaining", Relation.EQUAL, "granted")
MOVING = unjudged("I3", "sale a", SIDES, Doubt.IN_MOTION, "the flusher is busy")
DRAINING = unjudged("I3", "sale a", SIDES, Doubt.RECOVERING, "the bucket is draining")
AWAY = unjudged("I3", "sale a", SIDES, Doubt.UNREACHABLE, "Redis does not answer")


@pytest.mark.parametrize(
    ("equation", "holds"),
    [
        (equal("I2", "s", ("a", 3), ("b", 3)), True),
        (equal("I2", "s", ("a", 3), ("b", 4)), False),
        (equal("I2", "s", ("a", 3), ("b", 3), broken=2), False),
        (at_most("I4", "s", ("a", 3), ("b", 3)), True),
        (at_most("I4", "s", ("a", 4), ("b", 3)), False),
        (none_of("I10", "s", "late orders", 0), True),
        (none_of("I10", "s", "late orders", 1), False),
        (MOVING, None),
    ],
)
def test_an_equation_is_judged_by_both_sides(equation, holds):
    assert equation.holds is holds


def test_counter_examples_are_bounded():
    equation = none_of("I10", "s", "late orders", 9, [f"order {n}" for n in range(9)])
    assert len(equation.counter_examples) == EXAMPLES_MAX


@pytest.mark.parametrize(
    ("equations", "verdict"),
    [
        ([], Verdict.HOLDS),
        ([HOLDS], Verdict.HOLDS),
        ([HOLDS, MOVING], Verdict.HOLDS),
        ([HOLDS, DRAINING], Verdict.INCONCLUSIVE),
        ([DRAINING, AWAY], Verdict.UNREACHABLE),
        ([AWAY, DRAINING, BROKEN, HOLDS], Verdict.BROKEN),
    ],
)
def test_the_worst_equation_decides(equations, verdict):
    assert verdict_of(equations) is verdict


def test_the_json_document_tells_both_sides_and_counts():
    document = json.loads(json.dumps(equations_as_json([HOLDS, BROKEN, MOVING])))
    assert document["verdict"] == "broken"
    assert document["counts"] == {
        "judged": 2,
        "broken": 1,
        "in_motion": 1,
        "recovering": 0,
        "unreachable": 0,
    }
    assert document["equations"][1] == {
        "invariant": "I1",
        "subject": "sale a",
        "left": "stock",
        "left_value": 5,
        "relation": "=",
        "right": "pool + granted",
        "right_value": 6,
        "holds": False,
        "doubt": None,
        "note": "",
        "counter_examples": [],
    }
