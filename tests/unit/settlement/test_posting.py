from datetime import UTC, datetime

import pytest

from app.settlement.fact import FactKind, read_fact
from app.settlement.posting import post_facts
from app.settlement.tax import Reversal

MOMENT = datetime(2026, 11, 11, tzinfo=UTC)
RATE = 1300


def capture(kind="payment_captured", merchant="", amount_minor=8880):
    payload = {
        "order_id": "A",
        "attempt": "A01",
        "provider": "wechatpay",
        "merchant": merchant,
        "sale": 7,
        "amount_minor": amount_minor,
        "currency": "CNY",
        "captured_at": "2026-11-11T00:00:00Z",
        "refund_no": "RA01",
    }
    return read_fact(kind, payload, MOMENT)


def refund(kind, merchant="", amount_minor=8880, *, suspense=False, number="RA01"):
    payload = {
        "refund_no": number,
        "order_id": "A",
        "attempt": "A01",
        "provider": "wechatpay",
        "merchant": merchant,
        "amount_minor": amount_minor,
        "currency": "CNY",
        "suspense": suspense,
    }
    return read_fact(kind, payload, MOMENT)


# The chart of the settlement design, one fact per block: order 88.80, VAT 13 %.
#   state    debit                          credit                         fen
POSTINGS = {
    "own goods paid": """
    posted   provider.wechatpay.receivable  order.clearing                 8880
    posted   order.clearing                 revenue.net                    7858
    posted   order.clearing                 tax.output_vat                 1022
    """,
    "a merchant's goods paid": """
    posted   provider.wechatpay.receivable  order.clearing                 8880
    posted   order.clearing                 merchant.m1.payable            8880
    """,
    "paid after close": """
    posted   provider.wechatpay.receivable  suspense.late_payment          8880
    """,
    "refund of own goods asked": """
    pending  refund.clearing                provider.wechatpay.receivable  8880
    """,
    "refund of own goods succeeded": """
    pending  refund.clearing                provider.wechatpay.receivable  8880
    post     refund.clearing                provider.wechatpay.receivable  8880
    posted   revenue.net                    refund.clearing                7858
    posted   tax.output_vat                 refund.clearing                1022
    """,
    "refund of own goods closed": """
    pending  refund.clearing                provider.wechatpay.receivable  8880
    void     refund.clearing                provider.wechatpay.receivable  8880
    """,
    "refund of a merchant's goods asked": """
    pending  refund.clearing                provider.wechatpay.receivable  8880
    pending  merchant.m1.payable            refund.clearing                8880
    """,
    "refund of a merchant's goods succeeded": """
    pending  refund.clearing                provider.wechatpay.receivable  8880
    pending  merchant.m1.payable            refund.clearing                8880
    post     refund.clearing                provider.wechatpay.receivable  8880
    post     merchant.m1.payable            refund.clearing                8880
    """,
    "refund of a merchant's goods closed": """
    pending  refund.clearing                provider.wechatpay.receivable  8880
    pending  merchant.m1.payable            refund.clearing                8880
    void     refund.clearing                provider.wechatpay.receivable  8880
    void     merchant.m1.payable            refund.clearing                8880
    """,
    "refund of a late payment asked": """
    pending  suspense.late_payment          provider.wechatpay.receivable  8880
    """,
    "refund of a late payment succeeded": """
    pending  suspense.late_payment          provider.wechatpay.receivable  8880
    post     suspense.late_payment          provider.wechatpay.receivable  8880
    """,
    "refund of own goods paid by hand": """
    pending  refund.clearing                provider.wechatpay.receivable  8880
    post     refund.clearing                provider.wechatpay.receivable  8880
    posted   revenue.net                    refund.clearing                7858
    posted   tax.output_vat                 refund.clearing                1022
    posted   provider.wechatpay.receivable  bank.cny                       8880
    """,
    "refund of a merchant's goods paid by hand": """
    pending  refund.clearing                provider.wechatpay.receivable  8880
    pending  merchant.m1.payable            refund.clearing                8880
    post     refund.clearing                provider.wechatpay.receivable  8880
    post     merchant.m1.payable            refund.clearing                8880
    posted   provider.wechatpay.receivable  bank.cny                       8880
    """,
    "refund of a late payment paid by hand": """
    pending  suspense.late_payment          provider.wechatpay.receivable  8880
    post     suspense.late_payment          provider.wechatpay.receivable  8880
    posted   provider.wechatpay.receivable  bank.cny                       8880
    """,
    "refund of a late payment paid twice": """
    posted   suspense.double_refund         provider.wechatpay.receivable  8880
    """,
}
FACTS = {
    "own goods paid": capture(),
    "a merchant's goods paid": capture(merchant="m1"),
    "paid after close": capture("late_payment"),
    "refund of own goods asked": refund("refund_requested"),
    "refund of own goods succeeded": refund("refund_succeeded"),
    "refund of own goods closed": refund("refund_closed"),
    "refund of a merchant's goods asked": refund("refund_requested", "m1"),
    "refund of a merchant's goods succeeded": refund("refund_succeeded", "m1"),
    "refund of a merchant's goods closed": refund("refund_closed", "m1"),
    "refund of a late payment asked": refund("refund_requested", suspense=True),
    "refund of a late payment succeeded": refund("refund_succeeded", suspense=True),
    "refund of own goods paid by hand": refund("refund_paid_by_hand"),
    "refund of a merchant's goods paid by hand": refund("refund_paid_by_hand", "m1"),
    "refund of a late payment paid by hand": refund("refund_paid_by_hand", suspense=True),
    "refund of a late payment paid twice": refund("refund_doubled", suspense=True),
}


def told(transfers):
    return [(str(t.state), t.debit.code, t.credit.code, str(t.amount_minor)) for t in transfers]


@pytest.mark.parametrize("event", POSTINGS)
def test_each_fact_becomes_the_transfers_of_the_chart(event):
    wanted = [tuple(line.split()) for line in POSTINGS[event].strip().splitlines()]
    assert told(post_facts([FACTS[event]], [], RATE)) == wanted


def test_every_kind_of_fact_is_posted():
    assert {fact.kind for fact in FACTS.values()} == set(FactKind)


@pytest.mark.parametrize("event", POSTINGS)
def test_a_fact_told_twice_is_the_same_transfers(event):
    once, twice = (post_facts([FACTS[event]], [], RATE) for _ in range(2))
    assert [(t.id, t.request_hash()) for t in once] == [(t.id, t.request_hash()) for t in twice]


def test_a_refund_is_announced_alike_by_its_request_and_by_its_end():
    asked = post_facts([refund("refund_requested", "m1")], [], RATE)
    for kind in ("refund_succeeded", "refund_closed"):
        ended = post_facts([refund(kind, "m1")], [], RATE)
        assert [(t.id, t.batch_id, t.request_hash()) for t in ended[:2]] == [
            (t.id, t.batch_id, t.request_hash()) for t in asked
        ]


def test_transfers_of_one_fact_share_a_batch_of_their_own():
    batches = {
        event: {t.batch_id for t in post_facts([FACTS[event]], [], RATE)[-1:]}
        for event in POSTINGS
        if "goods" in event and "merchant" not in event
    }
    assert len(set.union(*batches.values())) == 3, "paid; asked; ended, whichever way"


def test_one_fen_has_no_tax_and_no_empty_transfer():
    assert told(post_facts([capture(amount_minor=1)], [], RATE)) == [
        ("posted", "provider.wechatpay.receivable", "order.clearing", "1"),
        ("posted", "order.clearing", "revenue.net", "1"),
    ]


def test_the_last_refund_takes_the_remainder_of_the_tax():
    parts = [refund("refund_succeeded", amount_minor=2960, number=f"RA0{n}") for n in range(3)]
    transfers = post_facts(parts, [], RATE)
    taxes = [t.amount_minor for t in transfers if t.kind == "reverse_tax"]
    assert taxes == [341, 340, 341]
    assert sum(taxes) == 1022


def test_what_the_books_already_took_back_is_counted():
    earlier = Reversal(order_id="A", refund_no="RA00", net_minor=2619, tax_minor=341)
    transfers = post_facts([refund("refund_succeeded", amount_minor=5920)], [earlier], RATE)
    assert [t.amount_minor for t in transfers if t.kind == "reverse_tax"] == [1022 - 341]
