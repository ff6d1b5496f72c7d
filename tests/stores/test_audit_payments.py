"""Every promise about payments is broken once on purpose, and found."""

import pytest

from app.kernel.equation import Doubt, Verdict, verdict_of
from app.payments.audit import audit_payments
from tests.stores.audited_sale import SALE
from tests.stores.paid_sale import PaidSale
from tests.stores.told import told

# The same payment of the provider, for an order of the other bucket.
INSERT_TWIN = """
INSERT INTO orders
    (sale, bucket, epoch, seq, shopper, sku, quantity, units_held, price_minor, total_minor,
     currency, merchant, state, placed_at, pay_by, paid_at, key_hash, fingerprint)
VALUES (1, 1, 2, 0, 'hal', 'tea', 2, 2, 100, 200, 'CNY', '', 'paid', now(), now(), now(),
        decode(md5('hal'), 'hex'), '\\x0102030405060708');
INSERT INTO payment_attempts
    (number, sale, bucket, epoch, seq, ordinal, idempotency_key, fingerprint, provider, product,
     amount_minor, currency, state, provider_number, captured_minor, expires_at)
VALUES (lpad('H1', 28, '0'), 1, 1, 2, 0, 1, 'H1', '', 'sandbox', 'qr', 200, 'CNY', 'paid', 'p1',
        200, now())"""

STRAY_PAYMENT = """
ALTER TABLE payment_attempts DROP CONSTRAINT payment_attempts_of_order;
UPDATE payment_attempts SET seq = 77 WHERE idempotency_key = 'A1'"""


@pytest.fixture
async def sale(shards, redis, deployment):
    sale = PaidSale(shards, redis, deployment)
    await sale.write()
    return sale


async def broken(sale):
    return [equation for equation in await audit_payments(sale.shards) if equation.holds is False]


async def test_healthy_payments_hold_every_promise(sale):
    equations = await audit_payments(sale.shards, "spring")
    assert told([equation for equation in equations if equation.holds is not True]) == ""
    assert {equation.invariant for equation in equations} == {"I12", "I13", "I16"}
    assert "captured - refunds asked for 300 total - refunded of paid orders 300" in told(equations)


SET_ATTEMPT = "UPDATE payment_attempts SET {} WHERE idempotency_key = '{}'"

# what breaks it -> invariant, what is told of it
BREAKS = [
    ("UPDATE orders SET refunded_minor = 50 WHERE shopper = 'bob'",
     "I12", "order 1/0/2/1 (paid) kept 200, should keep 150"),
    (SET_ATTEMPT.format("captured_minor = 199", "B1"), "I12", "kept 199, should keep 200"),
    (SET_ATTEMPT.format("refunded_minor = 99", "C1"), "I12", "(closed) kept 1, should keep 0"),
    (SET_ATTEMPT.format("state = 'paid', captured_minor = 100", "A1"),
     "I12", "(pending) kept 100, should keep 0"),
    (SET_ATTEMPT.format("refunded_minor = 1", "B1"), "I12", "says 1, its refunds 0"),
    (SET_ATTEMPT.format("provider_number = NULL", "B1"), "I12", "captures without"),
    ("DELETE FROM refunds WHERE number = 'RC100000'", "I13", "captured 100, late refunds 0 of 0"),
    ("UPDATE refunds SET amount_minor = 99 WHERE number = 'RC100000'",
     "I13", "captured late 200 refunds of late payments 199"),
    (SET_ATTEMPT.format("state = 'closed', captured_minor = 0", "E1"),
     "I13", "late payments that hold stock 1"),
    (STRAY_PAYMENT, "I16", "order 1/0/2/77 attempt"),
]  # fmt: skip


async def test_a_break_is_found(sale, subtests):
    for statement, invariant, example in BREAKS:
        with subtests.test(statement):
            await sale.rewrite()
            await sale.execute(statement)
            found = [equation for equation in await broken(sale) if equation.invariant == invariant]
            assert example in told(found)


async def test_one_payment_on_two_shards_is_found(sale):
    await sale.execute(INSERT_TWIN, shard=sale.shards.of(SALE, 1))
    (equation,) = await broken(sale)
    assert equation.left == "provider's payments recorded more than once"
    assert equation.counter_examples == (
        f"sandbox p1 by attempt {'B1':0>28}",
        f"sandbox p1 by attempt {'H1':0>28}",
    )


async def test_a_refund_under_way_is_judged_at_rest(sale):
    await sale.execute("UPDATE refunds SET state = 'sent' WHERE number = 'RC100000'")
    equations = await audit_payments(sale.shards)
    (moving,) = [equation for equation in equations if equation.holds is None]
    assert (moving.invariant, moving.doubt) == ("I12", Doubt.IN_MOTION)
    assert moving.note == "1 refunds are under way"
    assert verdict_of(equations) is Verdict.HOLDS
