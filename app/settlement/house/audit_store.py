"""What the audit reads of the house, beside the books; read-only."""

from typing import Final

_LEDGER: Final = """
SELECT currency::text AS currency, (credits_posted - debits_posted)::bigint AS minor
FROM ledger_accounts WHERE code = $1 OR code LIKE $1 || '.%'"""

SELECT_BALANCE_SUMS: Final = f"""
SELECT currency, coalesce(stored.minor, 0)::bigint AS stored,
       coalesce(entered.minor, 0)::bigint AS entered, coalesce(owed.minor, 0)::bigint AS owed
FROM (SELECT currency::text AS currency, sum(balance_minor) AS minor
      FROM balances GROUP BY 1) AS stored
FULL JOIN (SELECT b.currency::text AS currency, sum(e.amount_minor) AS minor
           FROM balance_entries e JOIN balances b ON b.id = e.balance_id GROUP BY 1) AS entered
  USING (currency)
FULL JOIN ({_LEDGER}) AS owed USING (currency)
ORDER BY currency"""

SELECT_BALANCE_BREAKS: Final = """
SELECT b.id, b.balance_minor, b.entries, coalesce(e.minor, 0)::bigint AS entered,
       coalesce(e.count, 0) AS count
FROM balances b
LEFT JOIN (SELECT balance_id, sum(amount_minor) AS minor, count(*) AS count
           FROM balance_entries GROUP BY balance_id) e ON e.balance_id = b.id
WHERE (b.balance_minor, b.entries) <> (coalesce(e.minor, 0), coalesce(e.count, 0))
ORDER BY b.id LIMIT $1"""

SELECT_LINE_SUMS: Final = f"""
SELECT currency, coalesce(lines.minor, 0)::bigint AS waiting,
       coalesce(held.minor, 0)::bigint AS held
FROM (SELECT currency::text AS currency, sum(amount_minor) AS minor
      FROM bank_lines WHERE state = 'suspense' GROUP BY 1) AS lines
FULL JOIN ({_LEDGER}) AS held USING (currency)
ORDER BY currency"""

SELECT_IMPORT_SUMS: Final = """
SELECT currency, coalesce(lines.minor, 0)::bigint AS imported,
       coalesce(posted.minor, 0)::bigint AS posted
FROM (SELECT currency::text AS currency, sum(amount_minor) AS minor
      FROM bank_lines GROUP BY 1) AS lines
FULL JOIN (SELECT currency, sum(amount_minor) AS minor
           FROM ledger_transfers WHERE kind = 'bank_line' GROUP BY 1) AS posted USING (currency)
ORDER BY currency"""

# A payment by transfer is paid by its line and by nothing else, to the cent.
SELECT_MATCH_BREAKS: Final = """
SELECT coalesce(l.reference, p.number) AS example
FROM (SELECT * FROM bank_lines WHERE state = 'matched') l
FULL JOIN (SELECT * FROM house_payments WHERE provider = 'transfer' AND state = 'paid') p
  ON p.number = l.payment_number AND p.reference = l.reference
     AND p.amount_minor = l.amount_minor AND p.currency = l.currency
WHERE l.reference IS NULL OR p.number IS NULL
ORDER BY 1 LIMIT $1"""
