"""Every pair of every table of this stage is decided here."""

import pytest

from app.fulfilment.after_sale import CASES, AfterSaleEvent, AfterSaleKind, AfterSaleState
from app.fulfilment.review import REVIEW_MACHINE, Decision, ReviewState

TABLES = {
    AfterSaleKind.REFUND: """
  state       approve   refuse   withdraw   send_goods  resend  settle
  requested   -         refused  withdrawn  -           -       settled
  approved    -         -        -          -           -       -
  refused     -         -        -          -           -       -
  withdrawn   -         -        -          -           -       -
  goods_sent  -         -        -          -           -       -
  resent      -         -        -          -           -       -
  settled     -         -        -          -           -       -
""",
    AfterSaleKind.RETURN_AND_REFUND: """
  state       approve   refuse   withdraw   send_goods  resend  settle
  requested   approved  refused  withdrawn  -           -       -
  approved    -         -        withdrawn  goods_sent  -       -
  refused     -         -        -          -           -       -
  withdrawn   -         -        -          -           -       -
  goods_sent  -         refused  -          -           -       settled
  resent      -         -        -          -           -       -
  settled     -         -        -          -           -       -
""",
    AfterSaleKind.EXCHANGE: """
  state       approve   refuse   withdraw   send_goods  resend  settle
  requested   approved  refused  withdrawn  -           -       -
  approved    -         -        withdrawn  goods_sent  -       -
  refused     -         -        -          -           -       -
  withdrawn   -         -        -          -           -       -
  goods_sent  -         refused  -          -           resent  -
  resent      -         -        -          -           -       settled
  settled     -         -        -          -           -       -
""",
}
REVIEWS = """
  state     approve   hold  reject
  waiting   approved  held  rejected
  held      approved  -     rejected
  approved  -         held  rejected
  rejected  -         -     -
"""


def told(table):
    (_, *events), *rows = [line.split() for line in table.strip().splitlines()]
    return events, rows


def found(machine, states, events):
    return [[state, *(machine.moves.get((state, one), "-") for one in events)] for state in states]


@pytest.mark.parametrize("kind", AfterSaleKind)
def test_every_pair_of_an_after_sale_case_is_as_its_table_says(kind):
    events, rows = told(TABLES[kind])

    assert events == list(AfterSaleEvent)
    assert found(CASES[kind], AfterSaleState, AfterSaleEvent) == rows


def test_every_pair_of_a_review_is_as_the_table_says():
    decisions, rows = told(REVIEWS)

    assert decisions == list(Decision)
    assert found(REVIEW_MACHINE, ReviewState, Decision) == rows


@pytest.mark.parametrize("kind", AfterSaleKind)
def test_every_case_can_end(kind):
    machine = CASES[kind]
    reachable, ahead = set(), {machine.start}
    while ahead:
        reachable |= ahead
        ahead = {to for (source, _), to in machine.moves.items() if source in ahead} - reachable

    assert AfterSaleState.SETTLED in reachable
    assert {AfterSaleState.REFUSED, AfterSaleState.WITHDRAWN} <= reachable
