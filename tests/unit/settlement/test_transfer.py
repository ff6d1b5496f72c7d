from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from app.settlement import chart
from app.settlement.chart import TransferKind
from app.settlement.errors import TransferRefused
from app.settlement.transfer import Transfer, TransferState, ledger_id, resolve

MOMENT = datetime(2026, 11, 11, tzinfo=UTC)


def a_transfer(**changes):
    transfer = Transfer(
        id=ledger_id("capture", "A01"),
        batch_id=ledger_id("batch", "capture", "A01"),
        debit=chart.provider_receivable("sandbox", "CNY"),
        credit=chart.order_clearing("CNY"),
        amount_minor=8880,
        kind=TransferKind.CAPTURE,
        business_type="order",
        business_id="A",
        reference="A01",
        effective_at=MOMENT,
    )
    return replace(transfer, **changes)


def test_an_id_is_the_same_for_ever():
    assert ledger_id("capture", "A01") == UUID("4b96e9d9-c1d8-5861-b18a-5d719d8b4efc")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"amount_minor": 0}, "amount_positive"),
        ({"amount_minor": -1}, "amount_positive"),
        ({"amount_minor": 2**63}, "amount_positive"),
        ({"credit": chart.provider_receivable("sandbox", "CNY")}, "two_accounts"),
        ({"credit": chart.order_clearing("USD")}, "one_currency"),
    ],
)
def test_a_transfer_that_breaks_a_rule_is_refused(changes, rule):
    with pytest.raises(TransferRefused) as refused:
        a_transfer(**changes)
    assert refused.value.fields["rule"] == rule


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_minor": 8881},
        {"debit": chart.provider_receivable("wechatpay", "CNY")},
        {"credit": chart.late_payment_suspense("CNY")},
        {"kind": TransferKind.LATE_CAPTURE},
        {"state": TransferState.PENDING},
        {"business_id": "B"},
        {"reference": "A02"},
    ],
)
def test_the_hash_changes_with_everything_a_transfer_does(changes):
    assert a_transfer(**changes).request_hash() != a_transfer().request_hash()


def test_the_hash_does_not_depend_on_when_it_was_told():
    later = a_transfer(effective_at=datetime(2026, 11, 12, tzinfo=UTC))
    assert later.request_hash() == a_transfer().request_hash()


def test_post_and_void_of_one_pending_transfer_contradict_each_other():
    pending = a_transfer(state=TransferState.PENDING)
    batch_id = ledger_id("batch", "end", "A01")
    post = resolve(pending, TransferState.POST, batch_id=batch_id, effective_at=MOMENT)
    void = resolve(pending, TransferState.VOID, batch_id=batch_id, effective_at=MOMENT)
    assert post.id == void.id
    assert post.request_hash() != void.request_hash()
    assert post.pending_id == pending.id
