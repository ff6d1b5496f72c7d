"""
What the audit compares between the shards and the ledger; read-only.

On the shards: what providers took and gave back, and which facts wait in the
outbox. In the ledger: what of it is posted. A fact and its posting share a
business key, the order's id and the number a provider knows it by.
"""

from collections.abc import Sequence
from typing import Final

from app.orders.audit_store import Row, fetch_all, snapshot
from app.settlement.fact import FactKind
from app.settlement.posting import BUSINESS_TYPE
from app.storage.shards import Database, Shard

CAPTURES: Final = (str(FactKind.PAYMENT_CAPTURED), str(FactKind.LATE_PAYMENT))
REFUNDS: Final = (
    str(FactKind.REFUND_SUCCEEDED),
    str(FactKind.REFUND_PAID_BY_HAND),
    str(FactKind.REFUND_DOUBLED),
)

SELECT_MONEY: Final = """
SELECT provider, currency::text AS currency, sum(captured)::bigint AS captured,
       sum(refunded)::bigint AS refunded
FROM (
    SELECT provider, currency, captured_minor AS captured, 0 AS refunded FROM payment_attempts
    WHERE captured_minor > 0
    UNION ALL
    SELECT p.provider, r.currency, 0,
           CASE WHEN r.doubled_at IS NULL THEN r.amount_minor ELSE 2 * r.amount_minor END
    FROM refunds r JOIN payment_attempts p ON p.number = r.attempt_number
    WHERE r.state = 'succeeded'
) AS amounts GROUP BY provider, currency"""

SELECT_WAITING_FACTS: Final = """
SELECT kind, business_id AS reference, payload ->> 'order_id' AS order_id,
       payload ->> 'provider' AS provider, payload ->> 'currency' AS currency,
       (payload ->> 'amount_minor')::bigint AS amount
FROM outbox WHERE done_at IS NULL AND kind = ANY ($1::text[])"""

# Facts set aside for good, the likeliest reason of a difference.
SELECT_PARKED_FACTS: Final = """
SELECT format('letter %s: %s %s, %s', id, detail ->> 'fact', detail ->> 'business_id', reason)
       AS example
FROM dead_letters WHERE kind = 'ledger' AND dropped_at IS NULL ORDER BY id LIMIT $1"""

SELECT_POSTED: Final = """
SELECT account.code,
       coalesce(sum(transfer.amount_minor) FILTER (
           WHERE transfer.kind IN ('capture', 'late_capture')), 0)::bigint AS captured,
       coalesce(sum(transfer.amount_minor) FILTER (
           WHERE transfer.kind IN ('refund', 'late_refund', 'double_refund')),
                0)::bigint AS refunded
FROM ledger_accounts AS account
JOIN ledger_entries AS entry ON entry.account_id = account.id
JOIN ledger_transfers AS transfer ON transfer.id = entry.transfer_id
WHERE account.code LIKE 'provider.%.receivable%'
GROUP BY account.code"""

FIND_POSTED_FACTS: Final = f"""
SELECT fact.kind, fact.reference
FROM unnest($1::text[], $2::text[], $3::text[]) AS fact (kind, order_id, reference)
WHERE EXISTS (
    SELECT FROM ledger_transfers AS transfer
    WHERE transfer.business_type = '{BUSINESS_TYPE}'
      AND transfer.business_id = fact.order_id AND transfer.reference = fact.reference
      AND transfer.state IN ('posted', 'post')
      AND CASE WHEN fact.kind = ANY ($4::text[])
          THEN transfer.kind IN ('capture', 'late_capture')
          WHEN fact.kind = '{FactKind.REFUND_DOUBLED}' THEN transfer.kind = 'double_refund'
          ELSE transfer.kind IN ('refund', 'late_refund') END)"""


async def read_money(shard: Shard) -> tuple[list[Row], list[Row]]:
    """Return what providers took and gave back, and the facts that wait, of one instant."""
    async with snapshot(shard) as connection:
        money = await fetch_all(connection, SELECT_MONEY)
        waiting = await fetch_all(connection, SELECT_WAITING_FACTS, [*CAPTURES, *REFUNDS])
    return money, waiting


async def read_parked(shard: Shard, facts_max: int) -> list[str]:
    """Return what is told of facts that were set aside."""
    async with snapshot(shard) as connection:
        rows = await fetch_all(connection, SELECT_PARKED_FACTS, facts_max)
    return [row["example"] for row in rows]


async def read_posted(ledger: Database) -> dict[str, Row]:
    """Return code of a receivable -> what was posted to it."""
    async with snapshot(ledger) as connection:
        rows = await fetch_all(connection, SELECT_POSTED)
    return {row["code"]: row for row in rows}


async def find_posted(ledger: Database, facts: Sequence[Row]) -> set[tuple[str, str]]:
    """Return (kind, reference) of those facts that the ledger has already."""
    columns = [[fact[name] for fact in facts] for name in ("kind", "order_id", "reference")]
    async with snapshot(ledger) as connection:
        rows = await fetch_all(connection, FIND_POSTED_FACTS, *columns, list(CAPTURES))
    return {(row["kind"], row["reference"]) for row in rows}
