"""What the shards know of money is posted, or waits to be; every gap is found."""

from datetime import UTC, datetime

import pytest

from app.kernel.equation import Verdict, verdict_of
from app.orders.store import insert_outbox
from app.settlement.audit_postings import audit_postings
from app.settlement.poster import SettlementSettings, post_once
from tests.stores.audited_sale import AuditedSale
from tests.stores.told import told

PAID = "B" * 26
LATE = "C" * 26
MOMENT = datetime(2026, 11, 11, tzinfo=UTC).isoformat()

INSERT_MONEY = f"""
INSERT INTO payment_attempts
    (number, sale, bucket, epoch, seq, ordinal, idempotency_key, fingerprint, provider, product,
     amount_minor, currency, state, provider_number, captured_minor, refunded_minor, expires_at)
VALUES ('{PAID}01', 1, 0, 2, 1, 1, 'b', '', 'sandbox', 'qr', 200, 'CNY', 'paid', 'p1', 200, 0,
        now()),
       ('{LATE}01', 1, 0, 2, 2, 1, 'c', '', 'sandbox', 'qr', 100, 'CNY', 'paid_late', 'p2', 100,
        100, now());
INSERT INTO refunds (number, attempt_number, sale, bucket, epoch, seq, reason, late, amount_minor,
                     currency, state)
VALUES ('R{LATE}01', '{LATE}01', 1, 0, 2, 2, 'late_payment', true, 100, 'CNY', 'succeeded')"""  # noqa: S608  made of the constants above


@pytest.fixture
async def sale(shards, redis, deployment):
    sale = AuditedSale(shards, redis, deployment)
    await sale.write()
    await sale.execute(INSERT_MONEY)
    await tell_facts(sale)
    return sale


async def tell_facts(sale):
    refund = {
        **fact(LATE, 100),
        "refund_no": f"R{LATE}01",
        "suspense": True,
    }
    async with sale.shard.transaction() as connection:
        await insert_outbox(connection, "payment_captured", f"{PAID}01", fact(PAID, 200))
        await insert_outbox(connection, "late_payment", f"{LATE}01", fact(LATE, 100))
        await insert_outbox(connection, "refund_requested", f"R{LATE}01", refund)
        await insert_outbox(connection, "refund_succeeded", f"R{LATE}01", refund)


def fact(order_id, amount_minor):
    return {
        "order_id": order_id,
        "attempt": f"{order_id}01",
        "provider": "sandbox",
        "merchant": "",
        "amount_minor": amount_minor,
        "currency": "CNY",
        "captured_at": MOMENT,
    }


async def post(sale, ledger):
    while (await post_once(sale.shards, ledger, SettlementSettings())).facts_posted:
        pass


async def test_facts_that_wait_are_counted(sale, ledger_database):
    equations = await audit_postings(sale.shards, ledger_database)
    assert "captured as posted 0 + waiting 300 300 captured on the shards 300" in told(equations)
    assert verdict_of(equations) is Verdict.HOLDS


async def test_facts_that_are_posted_are_counted(sale, ledger_database):
    await post(sale, ledger_database)
    equations = await audit_postings(sale.shards, ledger_database)
    assert "captured as posted 300 + waiting 0 300 captured on the shards 300" in told(equations)
    assert "refunded as posted 100 + waiting 0 100 refunded on the shards 100" in told(equations)
    assert verdict_of(equations) is Verdict.HOLDS


async def test_facts_posted_but_not_marked_are_counted_once(sale, ledger_database):
    await post(sale, ledger_database)
    await sale.execute("UPDATE outbox SET done_at = NULL")
    assert verdict_of(await audit_postings(sale.shards, ledger_database)) is Verdict.HOLDS


async def test_a_capture_without_a_fact_is_found(sale, ledger_database):
    await sale.execute("DELETE FROM outbox WHERE kind = 'payment_captured'")
    await post(sale, ledger_database)
    equations = await audit_postings(sale.shards, ledger_database)
    (broken,) = [equation for equation in equations if equation.holds is False]
    assert (broken.left_value, broken.right_value) == (100, 300)


async def test_money_posted_that_no_shard_knows_is_found(sale, ledger_database):
    await post(sale, ledger_database)
    await sale.execute("DELETE FROM refunds")
    equations = await audit_postings(sale.shards, ledger_database)
    assert "refunded as posted 100 refunded on the shards 0" in told(
        equation for equation in equations if equation.holds is False
    )


async def test_a_parked_fact_is_named(sale, ledger_database):
    await sale.execute(
        "UPDATE outbox SET payload = payload - 'captured_at' WHERE kind = 'payment_captured'"
    )
    await post(sale, ledger_database)
    equations = await audit_postings(sale.shards, ledger_database)
    (broken,) = [equation for equation in equations if equation.holds is False]
    assert broken.counter_examples == (f"letter 2: payment_captured {PAID}01, UnreadableFact",)
