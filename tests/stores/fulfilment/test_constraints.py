"""Each named rule of what follows a payment is violated once on purpose."""

import itertools

import asyncpg
import pytest

from tests.style.sources import ROOT

SEALED = "decode(repeat('00', 30), 'hex')"
HASH = "decode(repeat('00', 32), 'hex')"
DELIVERY = """
INSERT INTO order_deliveries (sale, bucket, epoch, seq, key_id, receiver, mobile, address,
                              mobile_index)
VALUES (1, 0, 1, 0, 'a', <sealed>, <sealed>, <sealed>, <hash>)"""
INVOICE = """
INSERT INTO order_invoices (sale, bucket, epoch, seq, kind, key_id, title)
VALUES (1, 0, 1, 0, 'personal', 'a', <sealed>)"""
DELIVERY = DELIVERY.replace("<sealed>", SEALED).replace("<hash>", HASH)
INVOICE = INVOICE.replace("<sealed>", SEALED)
REVIEW = """
INSERT INTO order_reviews (sale, bucket, epoch, seq, state, reason, decided_by)
VALUES (1, 0, 1, 0, 'held', 'odd', 'up')"""
SHIPMENT = """
INSERT INTO order_shipments (sale, bucket, epoch, seq, carrier, tracking_number, confirm_by)
VALUES (1, 0, 1, 0, 'SF', '1', now() + interval '1 day')"""
CASE = """
INSERT INTO after_sales (sale, bucket, epoch, seq, ordinal, kind, state, reason, quantity,
                         amount_minor, idempotency_key, fingerprint)
VALUES (1, 0, 1, 0, 1, 'refund', 'refused', 'quality', 1, 5, 'k1', '')"""
NOTE = """
INSERT INTO order_notes (sale, bucket, epoch, seq, text, written_by, idempotency_key)
VALUES (1, 0, 1, 0, 'called', 'up', 'k1')"""


def elsewhere(row):
    """The same for an order that is not there."""
    return row.replace("(1, 0, 1, 0,", "(1, 0, 1, 9,")


# the rule -> what stands there already, what must not be added to it
VIOLATIONS = {
    "sales_refund_window": ("", "UPDATE sales SET refundable = 'window'"),
    "sales_review_rule": ("", "UPDATE sales SET review = 'from_amount'"),
    "order_deliveries_key": (DELIVERY, DELIVERY),
    "order_deliveries_of_order": ("", elsewhere(DELIVERY)),
    "order_deliveries_sealed": ("", DELIVERY.replace(SEALED, "'in clear'::bytea", 1)),
    "order_invoices_key": (INVOICE, INVOICE),
    "order_invoices_of_order": ("", elsewhere(INVOICE)),
    "order_invoices_company_is_taxed": ("", INVOICE.replace("personal", "company")),
    "order_reviews_key": (REVIEW, REVIEW),
    "order_reviews_of_order": ("", elsewhere(REVIEW)),
    "order_reviews_says_why": ("", REVIEW.replace("'odd'", "NULL")),
    "order_shipments_key": (SHIPMENT, SHIPMENT),
    "order_shipments_of_order": ("", elsewhere(SHIPMENT)),
    "order_shipments_confirm_later": ("", SHIPMENT.replace("+ interval", "- interval")),
    "after_sales_key": (CASE, CASE.replace("k1", "k2")),
    "after_sales_one_per_idempotency_key": (CASE, CASE.replace("0, 1, 'refund'", "0, 2, 'refund'")),
    "after_sales_of_order": ("", elsewhere(CASE)),
    "after_sales_money": ("", CASE.replace("1, 5,", "1, 0,")),
    "after_sales_settled_with_a_refund": ("", CASE.replace("refused", "settled")),
    "after_sales_sent_with_a_number": ("", CASE.replace("refused", "goods_sent")),
    "after_sales_resent_with_a_number": ("", CASE.replace("refused", "resent")),
    "after_sales_one_open": (
        CASE.replace("refused", "requested"),
        CASE.replace("refused", "approved").replace("k1", "k2").replace("0, 1, 'r", "0, 2, 'r"),
    ),
    "order_notes_one_per_key": (NOTE, NOTE),
    "order_notes_of_order": ("", elsewhere(NOTE)),
}


def named_rules():
    text = (ROOT / "app/storage/migrations/shard/0003_fulfilment.sql").read_text(encoding="utf-8")
    words = itertools.pairwise(text.replace("UNIQUE INDEX", "CONSTRAINT").split())
    return {word for before, word in words if before == "CONSTRAINT"}


def test_every_named_rule_is_violated_here():
    assert named_rules() == set(VIOLATIONS)


async def test_each_rule_refuses_what_breaks_it(scene, subtests):
    await scene.desk.place()
    for rule, (stands, added) in VIOLATIONS.items():
        with subtests.test(rule):
            shard = scene.shards.home(1) if rule.startswith("sales_") else scene.desk.shard
            async with shard.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                if stands:
                    await connection.execute(stands)
                with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
                    await connection.execute(added)
                await transaction.rollback()
            assert refused.value.constraint_name == rule
