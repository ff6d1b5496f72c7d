"""
Judge the books: do they balance, and does every stored sum equal what it sums.

All of it is read in one snapshot of the ledger. The ledger is right at every
instant, so its own equations hold while a sale runs; only the refund of a late
payment takes a while to be told, and is judged at rest.
"""

from collections.abc import Sequence
from typing import Final

from app.kernel.equation import Doubt, Equation, Relation, equal, none_of, unjudged
from app.orders.audit_store import Row, fetch_all, snapshot
from app.settlement.chart import CLEARING_CODES, SUSPENSE_CODES
from app.storage.shards import Database

SELECT_SIDES: Final = """
SELECT currency::text AS currency, sum(debits_posted)::bigint AS debits,
       sum(credits_posted)::bigint AS credits
FROM ledger_accounts GROUP BY currency ORDER BY currency"""

SELECT_COUNTER_BREAKS: Final = """
WITH entered AS (
    SELECT account_id, count(*) AS entries,
           sum(amount_minor) FILTER (WHERE side = 'debit') AS debits,
           sum(amount_minor) FILTER (WHERE side = 'credit') AS credits
    FROM ledger_entries GROUP BY account_id
), waiting AS (
    SELECT pending.debit_account, pending.credit_account, pending.amount_minor
    FROM ledger_transfers AS pending
    WHERE pending.state = 'pending' AND NOT EXISTS (
        SELECT FROM ledger_transfers AS resolver WHERE resolver.pending_id = pending.id)
), waiting_debits AS (
    SELECT debit_account AS account_id, sum(amount_minor) AS amount FROM waiting GROUP BY 1
), waiting_credits AS (
    SELECT credit_account AS account_id, sum(amount_minor) AS amount FROM waiting GROUP BY 1
)
SELECT account.code, counter.name, counter.stored, coalesce(counter.summed, 0)::bigint AS summed
FROM ledger_accounts AS account
LEFT JOIN entered ON entered.account_id = account.id
LEFT JOIN waiting_debits ON waiting_debits.account_id = account.id
LEFT JOIN waiting_credits ON waiting_credits.account_id = account.id
CROSS JOIN LATERAL (VALUES
    ('debits_posted', account.debits_posted, entered.debits),
    ('credits_posted', account.credits_posted, entered.credits),
    ('debits_pending', account.debits_pending, waiting_debits.amount),
    ('credits_pending', account.credits_pending, waiting_credits.amount),
    ('version', account.version, entered.entries)
) AS counter (name, stored, summed)
WHERE counter.stored <> coalesce(counter.summed, 0)
ORDER BY account.code, counter.name
LIMIT $1"""

SELECT_ENTRY_BREAKS: Final = """
SELECT transfer.id
FROM ledger_transfers AS transfer
LEFT JOIN ledger_entries AS debit ON debit.transfer_id = transfer.id AND debit.side = 'debit'
LEFT JOIN ledger_entries AS credit ON credit.transfer_id = transfer.id AND credit.side = 'credit'
WHERE CASE WHEN transfer.state IN ('posted', 'post')
    THEN (debit.account_id, debit.amount_minor, credit.account_id, credit.amount_minor)
         IS DISTINCT FROM
         (transfer.debit_account, transfer.amount_minor,
          transfer.credit_account, transfer.amount_minor)
    ELSE debit.transfer_id IS NOT NULL OR credit.transfer_id IS NOT NULL END
LIMIT $1"""

SELECT_CHAIN_BREAKS: Final = """
SELECT chained.transfer_id
FROM (SELECT transfer_id, net_before,
             lag(net_after, 1, 0::bigint) OVER (PARTITION BY account_id ORDER BY version) AS net
      FROM ledger_entries) AS chained
WHERE chained.net_before <> chained.net
LIMIT $1"""

SELECT_UNCLEARED: Final = """
SELECT account.code, transfer.business_id,
       sum(CASE entry.side WHEN 'debit' THEN entry.amount_minor
                           ELSE -entry.amount_minor END)::bigint AS net_minor,
       EXISTS (
           SELECT FROM ledger_transfers AS pending
           WHERE pending.business_type = transfer.business_type
             AND pending.business_id = transfer.business_id
             AND pending.state = 'pending' AND account.id IN (
                 pending.debit_account, pending.credit_account)
             AND NOT EXISTS (SELECT FROM ledger_transfers AS resolver
                             WHERE resolver.pending_id = pending.id)) AS under_way
FROM ledger_accounts AS account
JOIN ledger_entries AS entry ON entry.account_id = account.id
JOIN ledger_transfers AS transfer ON transfer.id = entry.transfer_id
WHERE account.code LIKE ANY ($1::text[])
GROUP BY account.id, transfer.business_type, transfer.business_id
HAVING sum(CASE entry.side WHEN 'debit' THEN entry.amount_minor ELSE -entry.amount_minor END) <> 0
ORDER BY account.code, transfer.business_id
LIMIT $2"""

# What each kind of transfer does to a receivable, beside its balance.
SELECT_RECEIVABLES: Final = """
SELECT account.code, account.debits_posted - account.credits_posted AS balance,
       coalesce(sum(transfer.amount_minor) FILTER (
           WHERE transfer.kind IN ('capture', 'late_capture')), 0)::bigint AS captured,
       coalesce(sum(transfer.amount_minor) FILTER (
           WHERE transfer.kind IN ('refund', 'late_refund', 'double_refund')),
                0)::bigint AS refunded,
       coalesce(sum(CASE WHEN transfer.kind
                    IN ('provider_fee_return', 'provider_settlement_return')
                    THEN -transfer.amount_minor ELSE transfer.amount_minor END) FILTER (
           WHERE transfer.kind IN ('provider_settlement', 'provider_settlement_return',
                                 'provider_fee', 'provider_fee_return')
       ), 0)::bigint AS settled
FROM ledger_accounts AS account
LEFT JOIN ledger_entries AS entry ON entry.account_id = account.id
LEFT JOIN ledger_transfers AS transfer ON transfer.id = entry.transfer_id
WHERE account.code LIKE 'provider.%.receivable%'
GROUP BY account.id
ORDER BY account.code"""

BREAKS_MAX: Final = 100  # nobody reads more; the count then says "at least"


async def audit_ledger(ledger: Database, *, live: bool) -> list[Equation]:
    """
    Judge I14 and I15 of the ledger.

    Args:
        ledger: the ledger database.
        live: a sale runs; what holds only at rest is then left unjudged.

    Raises:
        LedgerUnavailable: the ledger does not answer.
    """
    async with snapshot(ledger) as connection:
        sides = await fetch_all(connection, SELECT_SIDES)
        counters = await fetch_all(connection, SELECT_COUNTER_BREAKS, BREAKS_MAX)
        unpaired = await fetch_all(connection, SELECT_ENTRY_BREAKS, BREAKS_MAX)
        unchained = await fetch_all(connection, SELECT_CHAIN_BREAKS, BREAKS_MAX)
        receivables = await fetch_all(connection, SELECT_RECEIVABLES)
        clearing = await fetch_all(connection, SELECT_UNCLEARED, list(CLEARING_CODES), BREAKS_MAX)
        suspense = await fetch_all(connection, SELECT_UNCLEARED, list(SUSPENSE_CODES), BREAKS_MAX)
    return [
        *(_balances(side) for side in sides),
        *_stored_sums(counters, unpaired, unchained),
        *(_receivable(row) for row in receivables),
        _none_left("clearing", clearing),
        _suspense(suspense, live=live),
    ]


def _balances(side: Row) -> Equation:
    return equal(
        "I14",
        f"ledger {side['currency']}",
        ("sum of debits", side["debits"]),
        ("sum of credits", side["credits"]),
    )


def _stored_sums(
    counters: Sequence[Row],
    unpaired: Sequence[Row],
    unchained: Sequence[Row],
) -> list[Equation]:
    told = [
        f"{row['code']} {row['name']}: {row['stored']}, not {row['summed']}" for row in counters
    ]
    return [
        none_of("I14", "ledger", "counters unlike the sum of their entries", len(told), told),
        none_of(
            "I14",
            "ledger",
            "transfers without one debit and one credit entry of their amount",
            len(unpaired),
            [str(row["id"]) for row in unpaired],
        ),
        none_of(
            "I14",
            "ledger",
            "entries that do not go on from the one before",
            len(unchained),
            [str(row["transfer_id"]) for row in unchained],
        ),
    ]


def _receivable(row: Row) -> Equation:
    return equal(
        "I15",
        row["code"],
        ("balance", row["balance"]),
        ("captured - refunded - settled", row["captured"] - row["refunded"] - row["settled"]),
    )


def _none_left(what: str, left: Sequence[Row]) -> Equation:
    told = [f"{row['business_id']} on {row['code']}: {row['net_minor']}" for row in left]
    return none_of("I15", "ledger", f"orders with money left on {what} accounts", len(left), told)


def _suspense(left: Sequence[Row], *, live: bool) -> Equation:
    """Judge late payments: each has been refunded, or its refund is under way."""
    forgotten = [row for row in left if not row["under_way"]]
    if live and forgotten:
        return unjudged(
            "I15",
            "ledger",
            ("late payments without a refund", Relation.EQUAL, "0"),
            Doubt.IN_MOTION,
            "a late payment may be posted before the refund that was asked with it",
        )
    return _none_left("suspense", forgotten)
