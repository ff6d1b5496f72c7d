"""
Read the books: accounts, entries, the trial balance, the sums of an order.

Each question is one statement, so its answer is one instant of the ledger even
while posters write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.settlement.chart import Side
from app.settlement.posting import BUSINESS_TYPE
from app.storage.shards import Database

SELECT_ACCOUNTS: Final = """
SELECT code, currency::text AS currency, kind::text AS kind, normal_side::text AS normal_side,
       guard::text AS guard, debits_posted, credits_posted, debits_pending, credits_pending,
       version
FROM ledger_accounts
WHERE ($1::text IS NULL OR currency = $1) AND code > $2
ORDER BY code
LIMIT $3"""

SELECT_ACCOUNT: Final = """
SELECT id, normal_side::text AS normal_side FROM ledger_accounts WHERE code = $1"""

SELECT_ENTRIES: Final = """
SELECT entry.version, entry.transfer_id, entry.side::text AS side, entry.amount_minor,
       entry.net_before, entry.net_after, transfer.kind, transfer.batch_id,
       transfer.business_type, transfer.business_id, transfer.reference,
       transfer.effective_at, transfer.created_at
FROM ledger_entries AS entry
JOIN ledger_transfers AS transfer ON transfer.id = entry.transfer_id
WHERE entry.account_id = $1 AND entry.version < $2
ORDER BY entry.version DESC
LIMIT $3"""

SELECT_TRIAL_BALANCE: Final = """
SELECT code, currency::text AS currency, debits_posted, credits_posted
FROM ledger_accounts
WHERE $1::text IS NULL OR currency = $1
ORDER BY currency, code"""

SELECT_ORDER_SUMS: Final = """
SELECT business_id, kind, sum(amount_minor)::bigint AS amount_minor,
       count(DISTINCT batch_id) AS batches
FROM ledger_transfers
WHERE business_type = $1 AND business_id = ANY ($2::text[]) AND state IN ('posted', 'post')
GROUP BY business_id, kind"""

VERSION_MAX: Final = 9_223_372_036_854_775_807


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLine:
    """One account with its counters, all in minor units."""

    code: str
    currency: str
    kind: str
    normal_side: str
    guard: str
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int
    version: int

    @property
    def balance_minor(self) -> int:
        """The balance on the side on which the account grows."""
        return _on_side(self.normal_side, self.debits_posted - self.credits_posted)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryLine:
    """One entry of an account; balances are on the side on which the account grows."""

    version: int
    transfer_id: UUID
    batch_id: UUID
    side: str
    amount_minor: int
    balance_before_minor: int
    balance_after_minor: int
    kind: str
    business_type: str
    business_id: str
    reference: str
    effective_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class TrialLine:
    """One account of a trial balance; only one of the two columns is not zero."""

    code: str
    debit_minor: int
    credit_minor: int


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """All accounts of one currency."""

    currency: str
    lines: tuple[TrialLine, ...]

    @property
    def debits_minor(self) -> int:
        """The sum of the debit column."""
        return sum(line.debit_minor for line in self.lines)

    @property
    def credits_minor(self) -> int:
        """The sum of the credit column."""
        return sum(line.credit_minor for line in self.lines)

    @property
    def difference_minor(self) -> int:
        """Debits less credits: zero, or the books are broken."""
        return self.debits_minor - self.credits_minor


@dataclass(frozen=True, slots=True)
class OrderSum:
    """What was posted for one order, of one kind of transfer."""

    order_id: str
    kind: str
    amount_minor: int
    batches: int


class Books:
    """The ledger, to be read. Every method raises LedgerUnavailable when it is away."""

    def __init__(self, ledger: Database) -> None:
        self.ledger = ledger

    async def read_accounts(
        self,
        *,
        currency: str | None = None,
        after: str = "",
        limit: int = 1_000,
    ) -> list[AccountLine]:
        """Return accounts by code, from the first one after `after`."""
        async with self.ledger.connection() as connection:
            rows = await connection.fetch(SELECT_ACCOUNTS, currency, after, limit)
        return [AccountLine(**dict(row)) for row in rows]

    async def read_entries(
        self,
        code: str,
        *,
        before: int | None = None,
        limit: int = 20,
    ) -> list[EntryLine] | None:
        """
        Return entries of one account, newest first.

        Args:
            code: the account.
            before: only entries with a smaller version.
            limit: at most so many.

        Returns:
            None when there is no such account.
        """
        async with self.ledger.connection() as connection:
            account = await connection.fetchrow(SELECT_ACCOUNT, code)
            if account is None:
                return None
            version = VERSION_MAX if before is None else before
            rows = await connection.fetch(SELECT_ENTRIES, account["id"], version, limit)
        return [_entry_line(dict(row), account["normal_side"]) for row in rows]

    async def read_trial_balance(self, currency: str | None = None) -> list[TrialBalance]:
        """Return the trial balance of each currency, or of the one asked for."""
        async with self.ledger.connection() as connection:
            rows = await connection.fetch(SELECT_TRIAL_BALANCE, currency)
        lines: dict[str, list[TrialLine]] = {}
        for row in rows:
            net = row["debits_posted"] - row["credits_posted"]
            line = TrialLine(row["code"], max(net, 0), max(-net, 0))
            lines.setdefault(row["currency"], []).append(line)
        return [TrialBalance(name, tuple(of_name)) for name, of_name in lines.items()]

    async def sum_orders(self, order_ids: Sequence[str]) -> list[OrderSum]:
        """Return what was posted for these orders, per kind of transfer."""
        async with self.ledger.connection() as connection:
            rows = await connection.fetch(SELECT_ORDER_SUMS, BUSINESS_TYPE, list(order_ids))
        return [OrderSum(*row) for row in rows]


def _on_side(normal_side: str, net_minor: int) -> int:
    return net_minor if normal_side == Side.DEBIT else -net_minor


def _entry_line(row: dict[str, Any], normal_side: str) -> EntryLine:
    return EntryLine(
        balance_before_minor=_on_side(normal_side, row.pop("net_before")),
        balance_after_minor=_on_side(normal_side, row.pop("net_after")),
        recorded_at=row.pop("created_at"),
        **row,
    )
