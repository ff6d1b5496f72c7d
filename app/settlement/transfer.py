"""
One movement between two accounts: a positive amount, never changed.

The id comes from the business key, so whoever repeats a fact repeats the id;
the hash covers what the transfer does, so a repeat with other content is found.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

import msgspec

from app.kernel.money import AMOUNT_MINOR_MAX
from app.settlement.chart import Account, TransferKind
from app.settlement.errors import TransferRefused

LEDGER_NAMESPACE: Final = UUID("33764aa8-0477-5b16-b519-913ea6202895")
"""uuid5(NAMESPACE_URL, "urn:doorbuster:ledger"); every id in every ledger is made with it."""


class TransferState(StrEnum):
    """How a transfer counts: now, not yet, or as the end of one that waited."""

    POSTED = "posted"
    PENDING = "pending"
    POST = "post"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """
    One movement from `credit` to `debit`.

    `reference` is the number a provider knows it by; `effective_at` is when it
    happened outside. `pending_id` is set on POST and VOID alone.
    """

    id: UUID
    batch_id: UUID
    debit: Account
    credit: Account
    amount_minor: int
    kind: TransferKind
    business_type: str
    business_id: str
    reference: str
    effective_at: datetime
    state: TransferState = TransferState.POSTED
    pending_id: UUID | None = None

    def __post_init__(self) -> None:
        if not 0 < self.amount_minor <= AMOUNT_MINOR_MAX:
            raise TransferRefused(rule="amount_positive", amount_minor=self.amount_minor)
        if self.debit.code == self.credit.code:
            raise TransferRefused(rule="two_accounts", account=self.debit.code)
        if self.debit.currency != self.credit.currency:
            raise TransferRefused(
                rule="one_currency", debit=self.debit.currency, credit=self.credit.currency
            )
        resolves = self.state in {TransferState.POST, TransferState.VOID}
        assert resolves == (self.pending_id is not None)
        assert self.effective_at.tzinfo is not None, "a naive instant has no meaning"

    @property
    def currency(self) -> str:
        """The one currency of both accounts."""
        return self.debit.currency

    def request_hash(self) -> bytes:
        """
        Return the SHA-256 of what the transfer does.

        `effective_at` and `batch_id` are left out: a pending transfer may be
        first told by the fact that requests it or by the one that ends it.
        """
        content = (
            self.debit.code,
            self.credit.code,
            self.amount_minor,
            self.currency,
            self.kind,
            self.state,
            self.pending_id,
            self.business_type,
            self.business_id,
            self.reference,
        )
        return hashlib.sha256(msgspec.json.encode(content)).digest()


def ledger_id(*business_key: str) -> UUID:
    """Return the UUIDv5 of a business key (RFC 9562 §5.5)."""
    return uuid5(LEDGER_NAMESPACE, "/".join(business_key))


def resolve(
    pending: Transfer,
    state: TransferState,
    *,
    batch_id: UUID,
    effective_at: datetime,
) -> Transfer:
    """
    Return the transfer that posts or voids a whole pending one.

    Post and void of one pending transfer share an id, so that the second of two
    contradicting facts is found like any other repeat with other content.
    """
    assert pending.state is TransferState.PENDING
    return Transfer(
        id=ledger_id("resolve", str(pending.id)),
        batch_id=batch_id,
        debit=pending.debit,
        credit=pending.credit,
        amount_minor=pending.amount_minor,
        kind=pending.kind,
        business_type=pending.business_type,
        business_id=pending.business_id,
        reference=pending.reference,
        effective_at=effective_at,
        state=state,
        pending_id=pending.id,
    )
