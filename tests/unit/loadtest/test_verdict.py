import pytest

from app.kernel.equation import Doubt, Relation, equal, unjudged
from loadtest.answers import Outcome
from loadtest.checks import MISSING
from loadtest.history import Click, History, SaleTerms
from loadtest.verdict import EXIT_CODES, Grade, Threshold, count_orders, grade_run

HOLDS = equal("I4", "sale s", ("held", 1), ("stock", 1))
BREAKS = equal("I4", "sale s", ("held", 2), ("stock", 1))
SIDES = ("left", Relation.EQUAL, "right")
AWAY = unjudged("I14", "ledger", SIDES, Doubt.UNREACHABLE, "no answer")
MOVING = unjudged("I3", "sale s", SIDES, Doubt.IN_MOTION, "busy")
KEPT = Threshold("drain", 1.0, 10.0, "s")
MISSED = Threshold("drain", 11.0, 10.0, "s")
UNMEASURED = Threshold("p99", None, 10.0, "ms")


@pytest.mark.parametrize(
    ("equations", "thresholds", "doubts", "grade", "code"),
    [
        ([HOLDS], [KEPT], [], Grade.PASS, 0),
        ([HOLDS, MOVING], [KEPT], [], Grade.PASS, 0),
        ([HOLDS], [KEPT, MISSED], [], Grade.FAIL, 1),
        ([HOLDS, BREAKS], [KEPT], [], Grade.BROKEN, 3),
        ([BREAKS, AWAY], [MISSED], ["few clicks"], Grade.BROKEN, 3),
        ([HOLDS, AWAY], [KEPT], [], Grade.VOID, 4),
        ([HOLDS], [KEPT], ["few clicks"], Grade.VOID, 4),
        ([HOLDS], [KEPT, UNMEASURED], [], Grade.VOID, 4),
    ],
)
def test_a_break_outweighs_a_doubt_and_a_doubt_a_slow_run(
    equations, thresholds, doubts, grade, code
):
    assert grade_run(equations, thresholds, doubts) is grade
    assert EXIT_CODES[grade] == code


@pytest.mark.parametrize(("actual", "is_met"), [(9.0, False), (10.0, True), (11.0, True)])
def test_a_floor_is_reached_from_below(actual, is_met):
    assert Threshold("sold", actual, 10.0, "units", is_floor=True).is_met is is_met


def test_orders_are_counted_as_their_shoppers_see_them():
    click = Click("s", "ann", "k", 0, 0, 0, Outcome.WON, "A", "", waited=False, status=202)
    clicks = [click._replace(order_id=name, key=name) for name in "ABCDE"]
    history = History({"s": SaleTerms("s", 1, 1, 5, "CNY")}, clicks=clicks)
    refund = {"status": "succeeded", "amount_minor": 5}
    counted = count_orders(
        history,
        {
            "A": {"status": "paid", "quantity": 1},
            "B": {"status": "pending", "quantity": 1},
            "C": {"status": "closed", "quantity": 1, "refunds": [refund]},
            "D": {"status": "rejected"},
            "E": {"status": MISSING},
        },
    )
    assert (counted.accepted, counted.confirmed, counted.rejected) == (5, 3, 1)
    assert (counted.paid, counted.closed, counted.refunded) == (1, 1, 1)
    assert (counted.sold, counted.stock, counted.oversold, counted.lost) == (1, 1, 1, 1)
