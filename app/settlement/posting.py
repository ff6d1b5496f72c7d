"""
Which transfers a business fact becomes: one rule per kind of fact.

Pure. Facts come from the outbox of the shards, in no particular order and
sometimes twice; every rule yields the same transfers whenever it is asked. The
only thing a rule may look at besides its fact is what earlier refunds of the
order took back (`Reversal`), because tax is refunded by the cumulative method.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from app.settlement import chart
from app.settlement.chart import Account, TransferKind
from app.settlement.fact import OWN_GOODS, Capture, Fact, FactKind
from app.settlement.tax import Reversal, TaxBook
from app.settlement.transfer import Transfer, TransferState, ledger_id, resolve

BUSINESS_TYPE: Final = "order"
"""Every fact of a payment belongs to an order."""


def post_facts(
    facts: Iterable[Fact],
    reversals: Iterable[Reversal],
    vat_rate_basis_points: int,
) -> list[Transfer]:
    """
    Return the transfers of some facts; facts told twice give them twice.

    Args:
        facts: in any order.
        reversals: all that the books already hold for the orders of those facts
            with `takes_back_tax`.
        vat_rate_basis_points: rate on our own goods; 1300 is 13 %.
    """
    tax = TaxBook(reversals, vat_rate_basis_points)
    return [transfer for fact in facts for transfer in _RULES[fact.kind](fact, tax)]


def _post_capture(fact: Fact, tax: TaxBook) -> list[Transfer]:
    """Take the money in and recognise it: for its merchant, or as revenue and tax."""
    told = fact.capture
    batch = _Batch.of_capture(TransferKind.CAPTURE, told)
    receivable = chart.provider_receivable(told.provider, told.currency)
    clearing = chart.order_clearing(told.currency)
    taken = batch.transfer(TransferKind.CAPTURE, receivable, clearing, told.amount_minor)
    if told.merchant != OWN_GOODS:
        payable = chart.merchant_payable(told.merchant, told.currency)
        kind = TransferKind.RECOGNISE_PAYABLE
        return [taken, batch.transfer(kind, clearing, payable, told.amount_minor)]
    tax_minor = tax.within(told.amount_minor)
    parts = (
        (TransferKind.RECOGNISE_REVENUE, chart.net_revenue, told.amount_minor - tax_minor),
        (TransferKind.RECOGNISE_TAX, chart.output_vat, tax_minor),
    )
    return [
        taken,
        *(
            batch.transfer(kind, clearing, account(told.currency), part_minor)
            for kind, account, part_minor in parts
            if part_minor
        ),
    ]


def _post_late_payment(fact: Fact, _: TaxBook) -> list[Transfer]:
    """Hold money in suspense that came for an order which could not take it."""
    told = fact.capture
    batch = _Batch.of_capture(TransferKind.LATE_CAPTURE, told)
    receivable = chart.provider_receivable(told.provider, told.currency)
    suspense = chart.late_payment_suspense(told.currency)
    return [batch.transfer(TransferKind.LATE_CAPTURE, receivable, suspense, told.amount_minor)]


def _post_refund_requested(fact: Fact, _: TaxBook) -> list[Transfer]:
    return _pending_refund(fact)


def _post_refund_succeeded(fact: Fact, tax: TaxBook) -> list[Transfer]:
    """End what was pending, and take back revenue and tax on our own goods."""
    ended = _end_refund(fact, TransferState.POST)
    if fact.takes_back_tax:
        ended += _reverse_own_goods(fact, tax.reverse(fact.refund))
    return ended


def _post_refund_closed(fact: Fact, _: TaxBook) -> list[Transfer]:
    return _end_refund(fact, TransferState.VOID)


def _post_refund_paid_by_hand(fact: Fact, tax: TaxBook) -> list[Transfer]:
    """End a refund like any other; our bank paid it, so its provider still owes us as much."""
    told = fact.refund
    batch = _Batch.of_refund("refund_end", fact)
    receivable = chart.provider_receivable(told.provider, told.currency)
    kind = TransferKind.PROVIDER_SETTLEMENT_RETURN
    paid = batch.transfer(kind, receivable, chart.bank(told.currency), told.amount_minor)
    return [*_post_refund_succeeded(fact, tax), paid]


def _post_refund_doubled(fact: Fact, _: TaxBook) -> list[Transfer]:
    """Hold in suspense what a provider gave back after a person had paid it out."""
    told = fact.refund
    batch = _Batch.of_refund("refund_doubled", fact)
    suspense = chart.double_refund_suspense(told.currency)
    receivable = chart.provider_receivable(told.provider, told.currency)
    return [batch.transfer(TransferKind.DOUBLE_REFUND, suspense, receivable, told.amount_minor)]


def _pending_refund(fact: Fact) -> list[Transfer]:
    """
    Announce a refund: money leaves, and its merchant's balance is set aside.

    Revenue and tax of our own goods are taken back only when the refund
    succeeds, so that a refund the provider closes leaves no trace in the tax.
    """
    told = fact.refund
    batch = _Batch.of_refund("refund", fact)
    receivable = chart.provider_receivable(told.provider, told.currency)
    if told.suspense:
        suspense = chart.late_payment_suspense(told.currency)
        return [batch.pending(TransferKind.LATE_REFUND, suspense, receivable, told.amount_minor)]
    clearing = chart.refund_clearing(told.currency)
    money = batch.pending(TransferKind.REFUND, clearing, receivable, told.amount_minor)
    if told.merchant == OWN_GOODS:
        return [money]
    payable = chart.merchant_payable(told.merchant, told.currency)
    kind = TransferKind.REVERSE_PAYABLE
    return [money, batch.pending(kind, payable, clearing, told.amount_minor)]


def _end_refund(fact: Fact, state: TransferState) -> list[Transfer]:
    """Announce the refund, in case nobody has yet, and post or void it."""
    pending = _pending_refund(fact)
    batch_id = ledger_id("batch", "refund_end", fact.refund.refund_no)
    ends = [
        resolve(transfer, state, batch_id=batch_id, effective_at=fact.recorded_at)
        for transfer in pending
    ]
    return pending + ends


def _reverse_own_goods(fact: Fact, reversal: Reversal) -> list[Transfer]:
    told = fact.refund
    batch = _Batch.of_refund("refund_end", fact)
    clearing = chart.refund_clearing(told.currency)
    parts = (
        (TransferKind.REVERSE_REVENUE, chart.net_revenue, reversal.net_minor),
        (TransferKind.REVERSE_TAX, chart.output_vat, reversal.tax_minor),
    )
    return [
        batch.transfer(kind, account(told.currency), clearing, part_minor)
        for kind, account, part_minor in parts
        if part_minor
    ]


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What the transfers of one fact have in common."""

    batch_id: UUID
    order_id: str
    reference: str
    effective_at: datetime

    @classmethod
    def of_capture(cls, kind: TransferKind, told: Capture) -> "_Batch":
        return cls(
            batch_id=ledger_id("batch", kind, told.attempt),
            order_id=told.order_id,
            reference=told.attempt,
            effective_at=told.captured_at,
        )

    @classmethod
    def of_refund(cls, step: str, fact: Fact) -> "_Batch":
        return cls(
            batch_id=ledger_id("batch", step, fact.refund.refund_no),
            order_id=fact.refund.order_id,
            reference=fact.refund.refund_no,
            effective_at=fact.recorded_at,
        )

    def transfer(
        self,
        kind: TransferKind,
        debit: Account,
        credit: Account,
        amount_minor: int,
        state: TransferState = TransferState.POSTED,
    ) -> Transfer:
        return Transfer(
            id=ledger_id(kind, self.reference),
            batch_id=self.batch_id,
            debit=debit,
            credit=credit,
            amount_minor=amount_minor,
            kind=kind,
            business_type=BUSINESS_TYPE,
            business_id=self.order_id,
            reference=self.reference,
            effective_at=self.effective_at,
            state=state,
        )

    def pending(
        self,
        kind: TransferKind,
        debit: Account,
        credit: Account,
        amount_minor: int,
    ) -> Transfer:
        return self.transfer(kind, debit, credit, amount_minor, TransferState.PENDING)


_RULES: Final[Mapping[FactKind, Callable[[Fact, TaxBook], list[Transfer]]]] = {
    FactKind.PAYMENT_CAPTURED: _post_capture,
    FactKind.LATE_PAYMENT: _post_late_payment,
    FactKind.REFUND_REQUESTED: _post_refund_requested,
    FactKind.REFUND_SUCCEEDED: _post_refund_succeeded,
    FactKind.REFUND_CLOSED: _post_refund_closed,
    FactKind.REFUND_PAID_BY_HAND: _post_refund_paid_by_hand,
    FactKind.REFUND_DOUBLED: _post_refund_doubled,
}
