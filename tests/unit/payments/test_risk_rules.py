"""Which payments are refused, held or let through, as a table."""

import pytest

from app.payments.risk.rules import (
    BlockEffect,
    Decision,
    HoldState,
    RiskFacts,
    RiskSubject,
    Verdict,
    decide,
)
from app.payments.settings import RiskSettings

SETTINGS = RiskSettings(amount_minor_max=1_000, hold_from_minor=500)

# Rows of one block differ in one thing; the first rule that applies is the answer.
TABLE = """
# amount over            blocked          hold      -> verdict rule
  499    -               -                -            ALLOW   -
  500    -               -                -            HOLD    amount_for_review
  1000   -               -                -            HOLD    amount_for_review
  1001   -               -                -            REFUSE  amount_over_limit
  1      shopper         -                -            REFUSE  shopper_too_often
  1      device          -                -            REFUSE  device_too_often
  1      address,device  -                -            REFUSE  device_too_often
  1      -               shopper=refuse   -            REFUSE  shopper_blocked
  1      -               device=refuse    -            REFUSE  device_blocked
  1      -               address=refuse   -            REFUSE  address_blocked
  1      -               shopper=hold     -            HOLD    shopper_watched
  1      -               device=hold      -            HOLD    device_watched
  1      -               address=hold     -            HOLD    address_watched
  1      -               -                held         HOLD    held_before
  1      -               -                rejected     REFUSE  rejected_by_operator
  1000   -               shopper=hold     released     ALLOW   -
  1001   -               -                released     REFUSE  amount_over_limit
  1      shopper         -                released     REFUSE  shopper_too_often
  1      -               shopper=refuse   released     REFUSE  shopper_blocked
  1001   shopper         shopper=refuse   rejected     REFUSE  rejected_by_operator
  1001   shopper         shopper=refuse   -            REFUSE  shopper_blocked
  1001   shopper         shopper=hold     -            REFUSE  amount_over_limit
  500    shopper         shopper=hold     held         REFUSE  shopper_too_often
  500    -               shopper=hold     -            HOLD    shopper_watched
"""
ROWS = [row.split() for row in TABLE.strip().splitlines()[1:]]


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_the_first_rule_that_applies_decides(row):
    amount, over, blocked, hold, verdict, rule = row
    blocks = [] if blocked == "-" else [blocked.split("=")]
    facts = RiskFacts(
        amount_minor=int(amount),
        over=frozenset(RiskSubject(one) for one in over.split(",") if one != "-"),
        blocks={RiskSubject(kind): BlockEffect(effect) for kind, effect in blocks},
        hold=None if hold == "-" else HoldState(hold),
    )
    assert decide(facts, SETTINGS) == Decision(Verdict[verdict], "" if rule == "-" else rule)


def test_without_settings_no_amount_is_too_large():
    facts = RiskFacts(amount_minor=9_223_372_036_854_775_807)
    assert decide(facts, RiskSettings()).verdict is Verdict.ALLOW
