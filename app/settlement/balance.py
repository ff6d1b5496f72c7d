"""
Fold a batch of transfers into the balances of its accounts.

Pure: the store locks the accounts, hands their balances in, and writes what
comes out. However many transfers of a batch touch an account, its row is
written once; that is what keeps the hot accounts of a rush (receivable,
clearing) from being locked once per order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from app.settlement.chart import GUARDED_KINDS, Guard, Side
from app.settlement.errors import TransferRefused
from app.settlement.transfer import Transfer, TransferState


@dataclass(slots=True, kw_only=True)
class Balance:
    """The counters of one account; `version` is its number of entries so far."""

    account_id: int
    code: str
    normal_side: Side
    guard: Guard = Guard.NONE
    debits_posted: int = 0
    credits_posted: int = 0
    debits_pending: int = 0
    credits_pending: int = 0
    version: int = 0

    @property
    def net(self) -> int:
        """Debits less credits: the sum of this over all accounts is zero."""
        return self.debits_posted - self.credits_posted

    @property
    def posted(self) -> int:
        """The balance on the side on which the account grows."""
        return self.net if self.normal_side is Side.DEBIT else -self.net

    @property
    def available(self) -> int:
        """The balance, less what pending transfers may still take from it."""
        leaving = self.credits_pending if self.normal_side is Side.DEBIT else self.debits_pending
        return self.posted - leaving


class Entry(NamedTuple):
    """One side of a posted transfer, with the net before and after."""

    account_id: int
    version: int
    transfer_id: UUID
    side: Side
    amount_minor: int
    net_before: int
    net_after: int


def fold(
    balances: Mapping[str, Balance],
    transfers: Sequence[Transfer],
    announced: Mapping[UUID, int],
) -> list[Entry]:
    """
    Apply new transfers, in order, to the balances of their accounts.

    Args:
        balances: code -> balance, locked; changed in place.
        transfers: none of them applied before.
        announced: id -> whole amount of each pending transfer they resolve.

    Returns:
        The entries to write, two for each transfer that moves money.

    Raises:
        TransferRefused: a withdrawal would take a guarded account below zero.
    """
    entries: list[Entry] = []
    for transfer in transfers:
        debit, credit = balances[transfer.debit.code], balances[transfer.credit.code]
        _fold_pending(debit, credit, transfer, announced)
        if transfer.state in {TransferState.POSTED, TransferState.POST}:
            entries.append(_debit(debit, transfer))
            entries.append(_credit(credit, transfer))
        _check_guard(debit, transfer)
    return entries


def _fold_pending(
    debit: Balance,
    credit: Balance,
    transfer: Transfer,
    announced: Mapping[UUID, int],
) -> None:
    if transfer.state is TransferState.PENDING:
        change = transfer.amount_minor
    elif transfer.pending_id is not None:
        change = -announced[transfer.pending_id]
    else:
        return
    debit.debits_pending += change
    credit.credits_pending += change


def _debit(balance: Balance, transfer: Transfer) -> Entry:
    before = balance.net
    balance.debits_posted += transfer.amount_minor
    return _entry(balance, transfer, Side.DEBIT, before)


def _credit(balance: Balance, transfer: Transfer) -> Entry:
    before = balance.net
    balance.credits_posted += transfer.amount_minor
    return _entry(balance, transfer, Side.CREDIT, before)


def _entry(balance: Balance, transfer: Transfer, side: Side, net_before: int) -> Entry:
    balance.version += 1
    return Entry(
        balance.account_id,
        balance.version,
        transfer.id,
        side,
        transfer.amount_minor,
        net_before,
        balance.net,
    )


def _check_guard(balance: Balance, transfer: Transfer) -> None:
    """Refuse a withdrawal that its account cannot bear, at the moment it is asked."""
    if transfer.kind not in GUARDED_KINDS or transfer.pending_id is not None:
        return  # what was set aside when it was asked may always be paid out
    if balance.guard is Guard.NO_NEGATIVE and balance.available < 0:
        raise TransferRefused(rule="no_negative", account=balance.code)
