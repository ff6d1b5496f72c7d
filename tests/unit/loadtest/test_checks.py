"""The checks find what they are for: each test breaks one promise on purpose."""

from dataclasses import replace

import pytest

from app.kernel.equation import Equation
from loadtest.answers import Outcome
from loadtest.checks import MISSING, UNREAD, check_history, check_orders
from loadtest.history import Click, History, SaleTerms
from loadtest.plan import Ending

PRICE = 8_880
WON = Click("s", "ann", "k1", 0.0, 0.0, 0.1, Outcome.WON, "A", "", waited=False, status=202)
LOST = WON._replace(
    shopper="bob", key="k2", outcome=Outcome.SOLD_OUT, order_id="", code="sold_out", status=409
)


def a_history(*clicks: Click, stock: int = 1, **endings: Ending) -> History:
    terms = SaleTerms("s", stock, 1, PRICE, "CNY")
    return History({"s": terms}, {}, list(clicks), endings, len(clicks))


def an_order(status: str = "paid", **changed) -> dict:
    payment = {"status": "paid", "amount_minor": PRICE}
    order = {
        "status": status,
        "reason": None,
        "sale": "s",
        "quantity": 1,
        "total_minor": PRICE,
        "payments": [payment] if status == "paid" else [],
        "refunds": [],
    }
    return order | changed


def broken(equations: list[Equation]) -> list[str]:
    return [equation.left for equation in equations if equation.holds is False]


def test_a_good_run_holds():
    history = a_history(WON, LOST, A=Ending.PAY)
    assert broken(check_history(history)) == []
    assert broken(check_orders(history, {"A": an_order()})) == []


@pytest.mark.parametrize(
    ("clicks", "name"),
    [
        ([WON, WON._replace(order_id="B")], "keys answered with several orders"),
        ([WON, WON._replace(key="k9")], "orders answered to several keys"),
        (
            [LOST._replace(outcome=Outcome.UNKNOWN)],
            "clicks without a final answer, however often repeated",
        ),
    ],
)
def test_a_history_can_break(clicks, name):
    assert broken(check_history(a_history(*clicks))) == [name]


def test_a_click_without_an_answer_is_seen():
    history = replace(a_history(WON), begun=2)
    assert broken(check_history(history)) == ["clicks"]


def test_an_unknown_that_a_repeat_settled_holds():
    unknown = WON._replace(outcome=Outcome.UNKNOWN, order_id="", status=0)
    again = WON._replace(outcome=Outcome.DUPLICATE)
    assert broken(check_history(a_history(unknown, again))) == []


LATE = {"status": "paid_late", "amount_minor": PRICE}
BACK = {"status": "succeeded", "amount_minor": PRICE}


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (an_order("queued"), ["accepted 1 - rejected 0"]),
        (an_order(MISSING), ["accepted 1 - rejected 0"]),
        (an_order("rejected"), []),
        (an_order(total_minor=1), ["orders that are not what was bought"]),
        (an_order(payments=[]), ["paid orders"]),
        (an_order("closed", payments=[LATE], refunds=[BACK]), []),
        (
            an_order("closed", payments=[LATE], refunds=[BACK | {"status": "requested"}]),
            ["captured by 1 closed orders", "1 late payments of"],
        ),
        (
            an_order("closed", payments=[LATE], refunds=[BACK | {"amount_minor": 1}]),
            ["captured by 1 closed orders", "1 late payments of"],
        ),
    ],
)
def test_an_order_can_break(order, names):
    found = broken(check_orders(a_history(WON), {"A": order}))
    assert [name for name in found if name in names] == names
    assert bool(found) is bool(names)


def test_one_unit_too_many_is_oversold():
    history = a_history(WON, WON._replace(shopper="bob", key="k2", order_id="B"))
    found = check_orders(history, {"A": an_order(), "B": an_order("pending")})
    assert broken(found) == ["units held"]
    assert [(e.left_value, e.right_value) for e in found if e.left == "units held"] == [(2, 1)]


def test_two_live_orders_of_one_shopper_break_the_limit():
    history = a_history(WON, WON._replace(key="k2", order_id="B"), stock=2)
    orders = {"A": an_order(), "B": an_order("pending")}
    assert broken(check_orders(history, orders)) == ["shoppers above the limit"]
    orders["B"] = an_order("closed")
    assert broken(check_orders(history, orders)) == []


@pytest.mark.parametrize(
    ("ending", "order", "is_so"),
    [
        (Ending.PAY, an_order(), True),
        (Ending.PAY, an_order("pending"), False),
        (Ending.PAY, an_order("closed", reason="expired"), True),
        (Ending.PAY, an_order("closed", reason="cancelled_by_shopper"), False),
        (Ending.CANCEL, an_order("closed", reason="cancelled_by_shopper"), True),
        (Ending.CANCEL, an_order("closed", reason="expired"), True),
        (Ending.CANCEL, an_order("paid"), False),
        (Ending.ABANDON, an_order("closed", reason="cancelled_by_shopper"), False),
        (Ending.ABANDON, an_order("closed", reason="expired"), True),
        (Ending.ABANDON, an_order("paid"), False),
    ],
)
def test_an_order_ends_as_meant(ending, order, is_so):
    found = broken(check_orders(a_history(WON, A=ending), {"A": order}))
    assert ("orders" not in found) is is_so


def test_what_cannot_be_read_is_not_judged():
    equations = check_orders(a_history(WON), {"A": {"status": UNREAD}})
    assert [equation.holds for equation in equations] == [None]
