"""The rules of a sale as tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.kernel.errors import IllegalTransition
from app.sales.policy import PolicyTerms, Refundable
from app.sales.sale import (
    ALREADY_DONE,
    SALE_ID,
    SALE_MACHINE,
    GroupTerms,
    Sale,
    SaleEvent,
    SaleKind,
    SaleState,
    SaleTerms,
    faults_of_terms,
    id_from_title,
    stock_band,
    warnings_of_terms,
)

OPENS_AT = datetime(2026, 11, 11, 12, tzinfo=UTC)
CLOSES_AT = OPENS_AT + timedelta(hours=1)
TERMS = SaleTerms(
    id="spring",
    kind=SaleKind.SECKILL,
    title="Spring",
    sku="tea",
    merchant="acme",
    stock=100,
    price_minor=8880,
    currency="CNY",
    limit_per_shopper=2,
    opens_at=OPENS_AT,
    closes_at=CLOSES_AT,
    pay_within_seconds=900,
    buckets=2,
)
GROUPS = GroupTerms(size=3, window_seconds=600)


def of_groups(**changes):
    """The terms of a group sale, some of them changed."""
    return {"kind": SaleKind.GROUP, "buckets": 1, "group": replace(GROUPS, **changes)}


def faults_of(terms):
    return faults_of_terms(terms, pay_within_seconds_min=60, group_window_seconds_min=60)


SALE = Sale(
    number=1,
    id="spring",
    kind=SaleKind.SECKILL,
    title="Spring",
    sku="tea",
    merchant="acme",
    price_minor=8880,
    currency="CNY",
    stock_total=100,
    pool=0,
    limit_per_shopper=2,
    opens_at=OPENS_AT,
    closes_at=CLOSES_AT,
    pay_within_seconds=900,
    buckets=2,
    policy=PolicyTerms(),
    state=SaleState.PUBLISHED,
    state_reason=None,
    published_at=OPENS_AT - timedelta(days=1),
    closed_at=None,
)

PAIRS = """
  state      publish    pause   resume     close
  draft      published  -       -          closed
  published  -          paused  -          closed
  paused     -          -       published  closed
  closed     -          -       -          -
"""


def after(state, event):
    try:
        return SALE_MACHINE.after(state, event)
    except IllegalTransition:
        return "-"


def test_every_pair_of_state_and_event_is_as_the_table_says():
    (_, *events), *rows = [line.split() for line in PAIRS.strip().splitlines()]
    found = [[state, *(after(state, event) for event in SaleEvent)] for state in SaleState]

    assert events == list(SaleEvent)
    assert found == rows


@pytest.mark.parametrize("event", SaleEvent)
def test_an_event_leads_to_one_state_only(event):
    """`change_state` looks the target up by the event alone."""
    assert len({to for (_, moved), to in SALE_MACHINE.moves.items() if moved is event}) == 1


@pytest.mark.parametrize("event", SaleEvent)
def test_where_an_event_is_done_already_it_is_no_move(event):
    for state in ALREADY_DONE[event]:
        assert (state, event) not in SALE_MACHINE.moves


# row        hours after opening -> what shoppers are told
VIEWS = """
  draft      -1    draft
  draft      0.5   draft
  published  -1    scheduled
  published  0     open
  published  0.99  open
  published  1     ended
  paused     -1    paused
  paused     0.5   paused
  paused     1     ended
  closed     -1    closed
  closed     0.5   closed
  closed     2     closed
"""


def test_a_sale_reads_as_its_row_and_the_clock_say():
    for line in VIEWS.strip().splitlines():
        state, hours, view = line.split()
        sale = replace(SALE, state=SaleState(state))
        assert sale.view_at(OPENS_AT + timedelta(hours=float(hours))) == view, line


def test_selling_ends_when_the_sale_was_closed_if_that_was_earlier():
    early, late = OPENS_AT + timedelta(minutes=5), CLOSES_AT + timedelta(minutes=5)

    assert SALE.ends_at == CLOSES_AT
    assert replace(SALE, closed_at=early).ends_at == early
    assert replace(SALE, closed_at=late).ends_at == CLOSES_AT


@pytest.mark.parametrize(
    ("available", "stock", "band"),
    [(100, 100, "plenty"), (21, 100, "plenty"), (20, 100, "few"), (1, 100, "few"),
     (0, 100, "gone"), (-1, 100, "gone"), (1, 1, "plenty")],
)  # fmt: skip
def test_stock_is_told_in_a_word(available, stock, band):
    assert stock_band(available, stock) == band


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, None),
        ({"id": "Spring"}, "$.id"),
        ({"id": ""}, "$.id"),
        ({"id": "a" * 41}, "$.id"),
        ({"currency": "XXX"}, "$.currency"),
        (
            {"policy": PolicyTerms(refundable=Refundable.WINDOW)},
            "$.refund_window_seconds",
        ),
        ({"closes_at": OPENS_AT}, "$.closes_at"),
        ({"closes_at": OPENS_AT + timedelta(days=401)}, "$.closes_at"),
        ({"pay_within_seconds": 59}, "$.pay_within_seconds"),
        ({"buckets": 3, "stock": 2}, "$.buckets"),
        ({"kind": SaleKind.ORDINARY}, "$.kind"),
        ({"kind": SaleKind.GROUP}, "$.group"),
        ({"group": GROUPS}, "$.group"),
        ({"kind": SaleKind.GROUP, "group": GROUPS, "buckets": 1}, None),
        ({"kind": SaleKind.GROUP, "group": GROUPS}, "$.buckets"),
        (of_groups(size=101), "$.group.size"),
        (of_groups(size=100), None),
        (of_groups(window_seconds=59), "$.group.window_seconds"),
        (of_groups(rescue_seconds=5), "$.group.rescue_seconds"),
        (of_groups(rescue_seconds=301), "$.group.rescue_seconds"),
        (of_groups(rescue_seconds=6), None),
        (of_groups(rescue_seconds=300), None),
    ],
)
def test_terms_that_break_a_rule_are_told_where(changes, path):
    faults = faults_of(replace(TERMS, **changes))

    assert [fault[0] for fault in faults] == ([path] if path else [])


def test_every_fault_is_told_at_once():
    bad = replace(TERMS, id="!", currency="XXX", closes_at=OPENS_AT, stock=1)

    assert len(faults_of(bad)) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ()),
        ({"opens_at": OPENS_AT - timedelta(days=2)}, ("has passed",)),
        ({"stock": 1}, ("whole stock",)),
        ({"closes_at": OPENS_AT + timedelta(seconds=30), "pay_within_seconds": 20},
         ("less than a minute",)),
        ({"pay_within_seconds": 4000}, ("after the sale has closed",)),
    ],
)  # fmt: skip
def test_a_careful_merchant_is_warned(changes, words):
    warnings = warnings_of_terms(replace(TERMS, **changes), OPENS_AT - timedelta(days=1))

    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


@pytest.mark.parametrize(
    ("title", "begins"),
    [("Spring Tea 2026!", "spring-tea-2026-"), ("Café", "cafe-"), ("春茶", "sale-"),
     ("---", "sale-"), ("x" * 200, "x" * 32 + "-")],
)  # fmt: skip
def test_an_id_is_made_from_any_title(title, begins):
    made = {id_from_title(title) for _ in range(20)}

    assert len(made) > 1
    assert all(one.startswith(begins) and SALE_ID.fullmatch(one) for one in made)
