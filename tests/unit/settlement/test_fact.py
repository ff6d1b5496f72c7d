from datetime import UTC, datetime

import pytest

from app.settlement.errors import UnreadableFact
from app.settlement.fact import FactKind, read_fact

MOMENT = datetime(2026, 11, 11, tzinfo=UTC)
CAPTURE = {
    "order_id": "A",
    "attempt": "A01",
    "provider": "sandbox",
    "merchant": "m1",
    "sale": 7,
    "amount_minor": 8880,
    "currency": "CNY",
    "captured_at": "2026-11-11T00:00:00.5Z",
}
REFUND = {
    "refund_no": "RA01",
    "order_id": "A",
    "attempt": "A01",
    "provider": "sandbox",
    "merchant": "",
    "amount_minor": 1,
    "currency": "CNY",
    "suspense": False,
}


def test_a_capture_is_read_with_what_no_rule_needs_ignored():
    fact = read_fact("payment_captured", CAPTURE, MOMENT)
    assert fact.kind is FactKind.PAYMENT_CAPTURED
    assert fact.capture.amount_minor == 8880
    assert fact.capture.captured_at.tzinfo is not None


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("something_else", CAPTURE),
        ("payment_captured", {}),
        ("payment_captured", []),
        ("payment_captured", None),
        ("payment_captured", CAPTURE | {"amount_minor": 0}),
        ("payment_captured", CAPTURE | {"amount_minor": 1.0}),
        ("payment_captured", CAPTURE | {"amount_minor": True}),
        ("payment_captured", CAPTURE | {"amount_minor": "1"}),
        ("payment_captured", CAPTURE | {"amount_minor": 2**63}),
        ("payment_captured", CAPTURE | {"currency": "cny"}),
        ("payment_captured", CAPTURE | {"currency": "CNY\n"}),
        ("payment_captured", CAPTURE | {"provider": "a.b"}),
        ("payment_captured", CAPTURE | {"merchant": "m" * 65}),
        ("payment_captured", CAPTURE | {"captured_at": "2026-11-11T00:00:00"}),
        ("payment_captured", CAPTURE | {"attempt": ""}),
        ("refund_requested", CAPTURE),
        ("refund_requested", REFUND | {"suspense": 0}),
    ],
)
def test_a_fact_that_no_rule_can_read_is_refused(kind, payload):
    with pytest.raises(UnreadableFact):
        read_fact(kind, payload, MOMENT)


@pytest.mark.parametrize(
    ("kind", "changes", "takes_back"),
    [
        ("refund_succeeded", {}, True),
        ("refund_succeeded", {"merchant": "m1"}, False),
        ("refund_succeeded", {"suspense": True}, False),
        ("refund_requested", {}, False),
        ("refund_closed", {}, False),
        ("refund_paid_by_hand", {}, True),
        ("refund_paid_by_hand", {"merchant": "m1"}, False),
        ("refund_paid_by_hand", {"suspense": True}, False),
        ("refund_doubled", {}, False),
    ],
)
def test_only_a_refund_of_own_goods_that_succeeded_takes_back_tax(kind, changes, takes_back):
    assert read_fact(kind, REFUND | changes, MOMENT).takes_back_tax is takes_back
