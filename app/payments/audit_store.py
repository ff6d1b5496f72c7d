"""
What the audit reads of payments in Postgres; read-only, a whole shard at a time.

An attempt and its order, a refund and its attempt change in one transaction on
one shard, so the rules hold at every instant of a snapshot. `$1` is everywhere
the numbers of the sales to judge, or NULL for all.
"""

from typing import Final

from app.orders.audit_store import Rule

_HERE: Final = "($1::int[] IS NULL OR {}.sale = ANY ($1))"
_ORDER_OF: Final = "format('order %s/%s/%s/%s', {0}.sale, {0}.bucket, {0}.epoch, {0}.seq)"
_OF_ATTEMPT: Final = f"{_ORDER_OF.format('p')} || ' attempt ' || p.number"

# What each order's attempts brought in and let go again, and what it should be.
_MONEY_OF_ORDERS: Final = f"""
SELECT o.sale, o.bucket, o.epoch, o.seq, o.currency, o.state::text AS state,
       coalesce(m.kept, 0)::bigint AS kept,
       CASE WHEN o.state IN ('paid', 'shipped', 'completed')
            THEN o.total_minor - o.refunded_minor ELSE 0 END AS due
FROM orders o
LEFT JOIN (SELECT sale, bucket, epoch, seq, sum(captured_minor - refunded_minor) AS kept
           FROM payment_attempts p WHERE {_HERE.format("p")} GROUP BY sale, bucket, epoch, seq) m
  USING (sale, bucket, epoch, seq)
WHERE {_HERE.format("o")}"""

SELECT_MONEY: Final = f"""
SELECT sale, currency, sum(kept)::bigint AS kept, sum(due)::bigint AS due
FROM ({_MONEY_OF_ORDERS}) AS orders GROUP BY sale, currency ORDER BY sale, currency"""

# At rest every refund that was asked for has succeeded.
SELECT_REFUNDS: Final = f"""
SELECT r.sale, r.currency, sum(r.amount_minor)::bigint AS asked,
       coalesce(sum(r.amount_minor) FILTER (WHERE r.state = 'succeeded'), 0)::bigint AS succeeded,
       count(*) FILTER (WHERE r.state <> 'succeeded') AS under_way
FROM refunds r WHERE {_HERE.format("r")}
GROUP BY r.sale, r.currency ORDER BY r.sale, r.currency"""

SELECT_LATE: Final = f"""
SELECT sale, currency, sum(captured)::bigint AS captured, sum(refunded)::bigint AS refunded
FROM (
    SELECT p.sale, p.currency, p.captured_minor AS captured, 0 AS refunded
    FROM payment_attempts p WHERE p.state = 'paid_late' AND {_HERE.format("p")}
    UNION ALL
    SELECT r.sale, r.currency, 0, r.amount_minor
    FROM refunds r WHERE r.late AND {_HERE.format("r")}
) AS amounts GROUP BY sale, currency ORDER BY sale, currency"""

# Only hashes travel: the same capture on two shards is found by counting them.
SELECT_CAPTURE_HASHES: Final = """
SELECT coalesce(array_agg(hashtextextended(concat_ws(chr(31), provider, account, provider_number),
                                           0)), '{}') AS hashes
FROM payment_attempts WHERE state IN ('paid', 'paid_late')"""

SELECT_CAPTURES_BY_HASH: Final = """
SELECT number, provider, provider_number FROM payment_attempts
WHERE state IN ('paid', 'paid_late')
  AND hashtextextended(concat_ws(chr(31), provider, account, provider_number), 0)
      = ANY ($1::bigint[])
ORDER BY number LIMIT $2"""

PAYMENT_RULES: Final = (
    Rule(
        "I12",
        "orders that kept other money than they cost",
        f"""
        SELECT sale, {_ORDER_OF.format("orders")} ||
               format(' (%s) kept %s, should keep %s', state, kept, due) AS example
        FROM ({_MONEY_OF_ORDERS}) AS orders WHERE kept <> due""",
    ),
    Rule(
        "I12",
        "attempts whose refunds do not add up",
        f"""
        SELECT p.sale, {_OF_ATTEMPT} ||
               format(' says %s, its refunds %s', p.refunded_minor, coalesce(r.asked, 0)) AS example
        FROM payment_attempts p
        LEFT JOIN (SELECT attempt_number, sum(amount_minor) AS asked
                   FROM refunds GROUP BY attempt_number) r ON r.attempt_number = p.number
        WHERE {_HERE.format("p")} AND p.refunded_minor <> coalesce(r.asked, 0)""",
    ),
    Rule(
        "I12",
        "captures without the provider's number",
        f"""
        SELECT p.sale, {_OF_ATTEMPT} AS example FROM payment_attempts p
        WHERE p.state IN ('paid', 'paid_late') AND coalesce(p.provider_number, '') = ''
          AND {_HERE.format("p")}""",
    ),
    Rule(
        "I13",
        "late payments without exactly one refund of as much",
        f"""
        SELECT p.sale, {_OF_ATTEMPT} ||
               format(' captured %s, late refunds %s of %s', p.captured_minor,
                      coalesce(r.count, 0), coalesce(r.asked, 0)) AS example
        FROM payment_attempts p
        LEFT JOIN (SELECT attempt_number, count(*) AS count, sum(amount_minor) AS asked
                   FROM refunds WHERE late GROUP BY attempt_number) r
          ON r.attempt_number = p.number
        WHERE {_HERE.format("p")} AND (
            (p.state = 'paid_late'
             AND (coalesce(r.count, 0) <> 1 OR r.asked <> p.captured_minor))
            OR (p.state <> 'paid_late' AND r.count > 0))""",
    ),
    Rule(
        "I13",
        "late payments that hold stock",
        f"""
        SELECT p.sale, {_OF_ATTEMPT} AS example
        FROM payment_attempts p JOIN orders o USING (sale, bucket, epoch, seq)
        WHERE p.state = 'paid_late' AND o.units_held > 0 AND {_HERE.format("p")}
          AND NOT EXISTS (
            SELECT FROM payment_attempts f WHERE f.state = 'paid'
            AND (f.sale, f.bucket, f.epoch, f.seq) = (p.sale, p.bucket, p.epoch, p.seq))""",
    ),
    Rule(
        "I16",
        "payments for orders that were never confirmed",
        f"""
        SELECT p.sale, {_OF_ATTEMPT} AS example
        FROM payment_attempts p LEFT JOIN orders o USING (sale, bucket, epoch, seq)
        WHERE o.shopper IS NULL AND {_HERE.format("p")}""",
    ),
)
