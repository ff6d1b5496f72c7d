"""What is particular to a run in groups: codes, fates, and groups that are whole or empty."""

import pytest

from app.kernel.equation import Equation
from loadtest.answers import Outcome
from loadtest.checks import check_orders, is_settled, paid_by_group
from loadtest.codes import SharedCodes
from loadtest.history import Click, GroupTerms, History, SaleTerms
from loadtest.plan import Ending, group_ending_of, key_of_try, opens_a_group, plan_visits

PRICE = 8_880
PAID = {"status": "paid", "amount_minor": PRICE}
BACK = {"status": "succeeded", "amount_minor": PRICE}
ASKED = BACK | {"status": "sent"}
MEMBERS = {"A": "ann", "B": "bob", "C": "cat"}


def a_click(order_id: str, shopper: str) -> Click:
    return Click(
        "s", shopper, f"k-{shopper}", 0.0, 0.0, 0.1, Outcome.WON, order_id, "",
        waited=False, status=202,
    )  # fmt: skip


def a_history(**endings: Ending) -> History:
    terms = SaleTerms("s", 3, 1, PRICE, "CNY", GroupTerms(3, 30))
    clicks = [a_click(*member) for member in MEMBERS.items()]
    return History({"s": terms}, {}, clicks, endings, len(clicks))


def an_order(status: str, **changed) -> dict:
    kept = {"payments": [PAID]} if status == "paid" else {}
    given_back = {"payments": [PAID], "refunds": [BACK]} if status == "refunded" else {}
    plain = {"reason": None, "sale": "s", "quantity": 1, "total_minor": PRICE, "group": "grp_1"}
    money = {"payments": [], "refunds": []}
    return {"status": status} | plain | money | kept | given_back | changed


def broken(equations: list[Equation]) -> list[str]:
    return [equation.left for equation in equations if equation.holds is False]


@pytest.mark.parametrize(
    ("statuses", "names"),
    [
        (("paid", "paid", "paid"), []),
        (("refunded", "refunded", "closed"), []),
        (("paid", "paid", "closed"), ["groups with a paid order"]),
        (("paid", "refunded", "refunded"), ["groups with a paid order"]),
    ],
)
def test_a_group_is_full_or_refunded_never_half(statuses, names):
    orders = {one: an_order(state) for one, state in zip(MEMBERS, statuses, strict=True)}
    assert broken(check_orders(a_history(), orders)) == names


def test_a_group_with_one_too_many_is_found():
    history = a_history()
    history.sales["s"] = history.sales["s"]._replace(group=GroupTerms(2, 30))
    orders = dict.fromkeys(MEMBERS, an_order("paid"))
    assert paid_by_group(history, orders, "s") == {"grp_1": 3}
    assert broken(check_orders(history, orders)) == ["groups with a paid order"]


@pytest.mark.parametrize("ending", [Ending.PAY, Ending.CANCEL, Ending.ABANDON])
@pytest.mark.parametrize("status", ["closed", "refunded"])
def test_who_was_in_a_group_that_failed_ended_as_the_others_did(ending, status):
    orders = {one: an_order(status, reason="group_failed") for one in MEMBERS}
    assert broken(check_orders(a_history(A=ending), orders)) == []
    alone = orders | {"A": orders["A"] | {"group": None}}
    assert broken(check_orders(a_history(A=ending), alone)) == ["orders"]


@pytest.mark.parametrize(
    ("order", "group_state", "is_so"),
    [
        (an_order("queued"), "", False),
        (an_order("pending"), "", False),
        (an_order("paid"), "open", False),
        (an_order("paid"), "failing", False),
        (an_order("paid"), "formed", True),
        (an_order("paid", group=None), "", True),
        (an_order("closed"), "", True),
        (an_order("closed", payments=[PAID | {"status": "paid_late"}]), "", False),
        (an_order("refunded"), "", True),
        (an_order("refunded", refunds=[ASKED]), "", False),
        (an_order("refunded", refunds=[BACK, ASKED]), "", False),
        ({"code": "order_not_found"}, "", False),
    ],
)
def test_an_order_is_settled_when_nothing_can_happen_to_it(order, group_state, is_so):
    assert is_settled(order, group_state) is is_so


def test_the_oldest_code_is_tried_until_somebody_was_refused():
    codes = SharedCodes()
    assert codes.pick() is None
    codes.share("first")
    codes.share("second")
    assert codes.pick() == codes.pick() == "first"
    codes.strike("first")
    codes.strike("first")
    assert codes.pick() == "second"


def test_any_twenty_seats_end_in_every_way_that_a_group_has():
    fates = {Ending.PAY, Ending.PAY_TOLD_TWICE, Ending.PAY_TOLD_LATE, Ending.CANCEL, Ending.ABANDON}
    for first in range(20):
        assert {group_ending_of(first + number) for number in range(20)} == fates
    assert {group_ending_of(number) for number in range(6)} <= {
        Ending.PAY, Ending.PAY_TOLD_LATE, Ending.PAY_TOLD_TWICE,
    }  # fmt: skip


def test_each_try_has_a_key_of_its_own_and_some_lead():
    visits = plan_visits(["s"], 200, run="r1", seed=1, spread_seconds=1.0)
    keys = {key_of_try(visit.key, number) for visit in visits for number in range(6)}
    assert len(keys) == 1_200
    assert {len(key) for key in keys} == {32}
    leaders = sum(opens_a_group(visit) for visit in visits)
    assert 20 <= leaders <= 60
