"""The sale of audited_sale.py with the payments that belong to it, facts not yet posted."""

from tests.stores.audited_sale import AuditedSale

# ann's order is pending, bob's (2) is paid, cat's (2) closed and paid late, eve's
# shipped after a double payment.
INSERT_ATTEMPTS = """
INSERT INTO payment_attempts
    (number, sale, bucket, epoch, seq, ordinal, idempotency_key, fingerprint, provider, product,
     amount_minor, currency, state, provider_number, captured_minor, refunded_minor, expires_at)
SELECT lpad(number, 28, '0'), 1, 0, 2, seq, ordinal, number, '', 'sandbox', 'qr', amount, 'CNY',
       state::attempt_state, provider_number, captured, refunded, now()
FROM (VALUES ('A1', 0, 1, 100, 'open', NULL, 0, 0), ('B1', 1, 1, 200, 'paid', 'p1', 200, 0),
             ('C1', 2, 1, 100, 'paid_late', 'p2', 100, 100),
             ('E1', 4, 1, 100, 'paid', 'p3', 100, 0),
             ('E2', 4, 2, 100, 'paid_late', 'p4', 100, 100))
  AS p (number, seq, ordinal, amount, state, provider_number, captured, refunded)"""

INSERT_REFUNDS = """
INSERT INTO refunds (number, attempt_number, sale, bucket, epoch, seq, reason, late, amount_minor,
                     currency, state)
VALUES ('RC100000', lpad('C1', 28, '0'), 1, 0, 2, 2, 'late_payment', true, 100, 'CNY', 'succeeded'),
       ('RE200000', lpad('E2', 28, '0'), 1, 0, 2, 4, 'double_payment', true, 100, 'CNY',
        'succeeded')"""

INSERT_FACTS = """
INSERT INTO outbox (kind, business_id, payload)
SELECT CASE state WHEN 'paid' THEN 'payment_captured' ELSE 'late_payment' END, number,
       jsonb_build_object('order_id', left(number, 26), 'attempt', number, 'provider', provider,
                          'merchant', '', 'amount_minor', amount_minor, 'currency', currency,
                          'captured_at', now())
FROM payment_attempts WHERE captured_minor > 0
UNION ALL
SELECT 'refund_' || told, r.number,
       jsonb_build_object('order_id', left(p.number, 26), 'attempt', p.number, 'provider',
                          provider, 'merchant', '', 'amount_minor', r.amount_minor, 'currency',
                          r.currency, 'refund_no', r.number, 'suspense', true)
FROM refunds r JOIN payment_attempts p ON p.number = r.attempt_number
CROSS JOIN (VALUES ('requested'), ('succeeded')) AS facts (told)"""


class PaidSale(AuditedSale):
    async def write(self):
        await super().write()
        await self.execute(INSERT_ATTEMPTS)
        await self.execute(INSERT_REFUNDS)
        await self.execute(INSERT_FACTS)
