"""The rules of payments as tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import IllegalTransition
from app.kernel.ids import OrderId, OrderKey
from app.kernel.machine import Machine
from app.payments.intent import (
    ATTEMPT_MACHINE,
    REFUND_MACHINE,
    Attempt,
    AttemptEvent,
    AttemptNumber,
    AttemptState,
    Check,
    Refund,
    RefundEvent,
    RefundNumber,
    RefundReason,
    RefundState,
    attempt_number,
    attempt_of_refund,
    check_payment,
    check_refund,
    next_query_at,
    order_of_attempt,
    refund_number,
    start_margin,
)
from app.payments.provider import (
    MerchantAccount,
    PaySnapshot,
    PayState,
    RefundSnapshot,
    RefundStatus,
)
from app.payments.settings import PaymentSettings

ATTEMPTS = """
#           opened  never_sent  captured  captured_late  provider_closed
created     open    not_sent    paid      paid_late      closed
open        -       -           paid      paid_late      closed
not_sent    -       -           paid      paid_late      -
paid        -       -           -         -              -
closed      -       -           paid      paid_late      -
paid_late   -       -           -         -              -
"""
REFUNDS = """
#           sending  answer_lost  provider_succeeded  provider_refused  retry_asked  paid_by_hand
requested   sent     -            -                   -                 -            -
sent        -        unknown      succeeded           abnormal          -            -
unknown     sent     -            succeeded           abnormal          -            -
succeeded   -        -            -                   -                 -            -
abnormal    -        -            succeeded           -                 requested    succeeded
"""
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORDER_ID = OrderId("0123456789ABCDEFGHJKMNPQRS")
NUMBER = attempt_number(ORDER_ID, 1)
ACCOUNT = MerchantAccount("", "m1", "a1")


def pairs(table: str) -> list[tuple[str, str, str]]:
    head, *lines = table.strip().splitlines()
    events = head.removeprefix("#").split()
    return [
        (state, event, target)
        for state, *targets in map(str.split, lines)
        for event, target in zip(events, targets, strict=True)
    ]


@pytest.mark.parametrize(
    ("machine", "states", "events", "table"),
    [
        (ATTEMPT_MACHINE, AttemptState, AttemptEvent, ATTEMPTS),
        (REFUND_MACHINE, RefundState, RefundEvent, REFUNDS),
    ],
    ids=["attempt", "refund"],
)
def test_every_pair_of_state_and_event_is_decided(machine: Machine, states, events, table: str):
    decided = pairs(table)
    assert {(state, event) for state, event, _ in decided} == {
        (state.value, event.value) for state in states for event in events
    }
    for state, event, target in decided:
        if target == "-":
            with pytest.raises(IllegalTransition):
                machine.after(states(state), events(event))
        else:
            assert machine.after(states(state), events(event)) == target


@pytest.mark.parametrize("machine", [ATTEMPT_MACHINE, REFUND_MACHINE])
def test_each_event_leads_to_one_state_from_wherever(machine: Machine):
    for event in {moved for _, moved in machine.moves}:
        targets = {target for (_, moved), target in machine.moves.items() if moved == event}
        assert len(targets) == 1, event


def test_numbers_fit_every_provider_and_lead_back():
    assert NUMBER == "0123456789ABCDEFGHJKMNPQRS01"
    assert order_of_attempt(NUMBER) == ORDER_ID
    number = refund_number(NUMBER, RefundReason.LATE_PAYMENT, 1)
    assert number == f"R{NUMBER}L01"
    assert number.isalnum()
    assert len(number) == 32
    assert attempt_of_refund(number) == NUMBER


@pytest.mark.parametrize(
    "text",
    ["", "x", NUMBER[:-1], NUMBER + "1", NUMBER.lower(), NUMBER[:-2] + "00", NUMBER[:-1] + "\n"],
)
def test_what_is_no_number_of_ours_leads_nowhere(text: str):
    assert order_of_attempt(text) is None
    assert attempt_of_refund(text) is None


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_numbers(text: str):
    order_of_attempt(text)
    attempt_of_refund(text)


@pytest.mark.parametrize(
    ("queries", "expires_in_seconds", "waits_seconds"),
    [
        (0, 3_600, 5),
        (1, 3_600, 30),
        (2, 3_600, 60),
        (6, 3_600, 1_800),
        (99, 3_600, 1_800),
        (2, 10, 11),  # just after its expiry at the latest
        (0, 0, 20),
        (9, -600, 20),
    ],
)
def test_an_attempt_is_asked_about_less_and_less_often_until_it_expires(
    queries: int, expires_in_seconds: int, waits_seconds: int
):
    expires_at = NOW + timedelta(seconds=expires_in_seconds)
    due = next_query_at(queries, NOW, expires_at, PaymentSettings())
    assert due == NOW + timedelta(seconds=waits_seconds)


@pytest.mark.parametrize(
    ("window_seconds", "margin_seconds"), [(900, 60), (240, 60), (60, 15), (8, 2), (1, 0.25)]
)
def test_the_margin_is_a_minute_or_a_quarter_of_the_time_to_pay(
    window_seconds: int, margin_seconds: float
):
    margin = start_margin(NOW, NOW + timedelta(seconds=window_seconds), timedelta(minutes=1))
    assert margin == timedelta(seconds=margin_seconds)


def attempt(**changes: object) -> Attempt:
    plain = Attempt(
        number=NUMBER,
        order_key=OrderKey(1, 0, 1, 0),
        ordinal=1,
        idempotency_key="k",
        fingerprint=b"",
        provider="sandbox",
        account="",
        product="qr",
        amount_minor=100,
        currency="CNY",
        state=AttemptState.OPEN,
        action=None,
        provider_number=None,
        captured_minor=0,
        refunded_minor=0,
        expires_at=NOW,
        created_at=NOW,
        queries=0,
    )
    return replace(plain, **changes)


PAID = PaySnapshot(
    number=NUMBER,
    state=PayState.PAID,
    merchant_id="m1",
    app_id="a1",
    provider_number="p1",
    amount_minor=100,
    currency="CNY",
)


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, Check.ACCEPTED),
        ({"state": PayState.REFUNDED}, Check.ACCEPTED),  # it was paid, or nothing went back
        ({"amount_minor": 99}, Check.AMOUNT_MISMATCH),
        ({"amount_minor": 101}, Check.AMOUNT_MISMATCH),
        ({"amount_minor": 100.0}, Check.AMOUNT_MISMATCH),
        ({"amount_minor": "100"}, Check.AMOUNT_MISMATCH),
        ({"currency": "cny"}, Check.CURRENCY_MISMATCH),
        ({"currency": ""}, Check.CURRENCY_MISMATCH),
        ({"merchant_id": "m2"}, Check.ACCOUNT_MISMATCH),
        ({"merchant_id": ""}, Check.ACCOUNT_MISMATCH),
        ({"app_id": "a2"}, Check.ACCOUNT_MISMATCH),
        ({"provider_number": None}, Check.ACCOUNT_MISMATCH),
        ({"state": PayState.PARTIAL_REFUND, "amount_minor": 1}, Check.AMOUNT_MISMATCH),
        ({"state": PayState.CLOSED, "amount_minor": 1}, Check.ACCEPTED),  # no money to compare
        ({"state": PayState.CLOSED, "merchant_id": "m2"}, Check.ACCOUNT_MISMATCH),
    ],
)
def test_only_what_we_asked_for_is_accepted(change: dict[str, object], answer: Check):
    assert check_payment(attempt(), ACCOUNT, "sandbox", replace(PAID, **change)) is answer


def test_true_is_no_amount():
    message = replace(PAID, amount_minor=True)
    assert check_payment(attempt(amount_minor=1), ACCOUNT, "sandbox", message) is (
        Check.AMOUNT_MISMATCH
    )


def test_another_provider_cannot_speak_of_this_payment():
    assert check_payment(attempt(), ACCOUNT, "alipay", PAID) is Check.ACCOUNT_MISMATCH


def test_an_account_without_a_merchant_accepts_nothing():
    nobody = MerchantAccount("", "", "a1")
    message = replace(PAID, merchant_id="")
    assert check_payment(attempt(), nobody, "sandbox", message) is Check.ACCOUNT_MISMATCH


REFUND = Refund(
    number=RefundNumber("R1"),
    order_key=OrderKey(1, 0, 1, 0),
    attempt=attempt().reference(),
    provider="sandbox",
    account="",
    merchant="acme",
    reason=RefundReason.LATE_PAYMENT,
    late=True,
    amount_minor=100,
    currency="CNY",
    state=RefundState.SENT,
    tries=1,
    requested_at=NOW,
)


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, Check.ACCEPTED),
        ({"amount_minor": 99}, Check.AMOUNT_MISMATCH),
        ({"currency": "USD"}, Check.CURRENCY_MISMATCH),
        ({"merchant_id": "m2"}, Check.ACCOUNT_MISMATCH),
        ({"attempt_number": AttemptNumber("other")}, Check.ACCOUNT_MISMATCH),
    ],
)
def test_a_refund_is_compared_like_a_payment(change: dict[str, object], answer: Check):
    told = RefundSnapshot(
        number="R1",
        attempt_number=NUMBER,
        status=RefundStatus.SUCCEEDED,
        merchant_id="m1",
        amount_minor=100,
        currency="CNY",
    )
    assert check_refund(REFUND, ACCOUNT, "sandbox", replace(told, **change)) is answer
