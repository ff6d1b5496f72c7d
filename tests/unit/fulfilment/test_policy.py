"""What a policy means for one order."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from app.fulfilment.policy import Policy
from app.orders.order import OrderState
from app.sales.policy import Refundable, ReviewRule, faults_of_policy

PAID_AT = datetime(2026, 11, 22, tzinfo=UTC)


def policy(**changes):
    plain = {
        "refundable": Refundable.NONE,
        "refund_window_seconds": None,
        "review": ReviewRule.NONE,
        "review_from_minor": None,
        "confirm_after_seconds": 60,
    }
    return Policy(**{**plain, **changes})


def order(state=OrderState.PAID, total_minor=100):
    return SimpleNamespace(state=state, paid_at=PAID_AT, total_minor=total_minor)


WINDOW = {"refundable": Refundable.WINDOW, "refund_window_seconds": 60}


@pytest.mark.parametrize(
    ("terms", "state", "seconds", "gives"),
    [
        ({}, "paid", 0, False),
        ({"refundable": Refundable.BEFORE_SHIPPING}, "paid", 10**6, True),
        ({"refundable": Refundable.BEFORE_SHIPPING}, "shipped", 0, False),
        (WINDOW, "paid", 59, True),
        (WINDOW, "paid", 60, False),
        (WINDOW, "shipped", 0, False),
        (WINDOW, "refunded", 0, False),
    ],
)
def test_a_paid_order_is_given_back_as_the_policy_says(terms, state, seconds, gives):
    now = PAID_AT + timedelta(seconds=seconds)

    assert policy(**terms).gives_back(order(OrderState(state)), now) is gives


@pytest.mark.parametrize(
    ("terms", "total", "needed"),
    [
        ({}, 10**6, False),
        ({"review": ReviewRule.EVERY}, 1, True),
        ({"review": ReviewRule.FROM_AMOUNT, "review_from_minor": 100}, 99, False),
        ({"review": ReviewRule.FROM_AMOUNT, "review_from_minor": 100}, 100, True),
    ],
)
def test_an_order_is_reviewed_as_the_policy_says(terms, total, needed):
    assert policy(**terms).needs_review(order(total_minor=total)) is needed


@pytest.mark.parametrize(
    ("terms", "at"),
    [
        (WINDOW, []),
        ({"refundable": Refundable.WINDOW}, ["$.refund_window_seconds"]),
        ({"refund_window_seconds": 60}, ["$.refund_window_seconds"]),
        ({"review": ReviewRule.FROM_AMOUNT}, ["$.review_from_minor"]),
        ({"review": ReviewRule.EVERY, "review_from_minor": 5}, ["$.review_from_minor"]),
    ],
)
def test_half_a_policy_is_refused(terms, at):
    assert [path for path, _ in faults_of_policy(policy(**terms))] == at
