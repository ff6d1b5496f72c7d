"""
What a day's statement lists: the book's payments and refunds, and what is played with them.

The script of a payment decides whether the statement agrees with the book, leaves
the payment out, names another amount, or has a row more than the book.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from app.kernel.clock import instant
from app.payments.provider import RefundStatus
from app.sandbox.book import Book
from app.sandbox.numbers import BEIJING, payment_number_of, refund_number_of
from app.sandbox.records import BillPlay, Payment, Refund, Wire
from app.sandbox.scripts import Scripts


class LineKind(StrEnum):
    """What a line of a statement is about."""

    PAYMENT = "payment"
    REFUND = "refund"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One payment or refund of a day; amounts in minor units, never negative."""

    kind: LineKind
    at_ms: int
    payment: Payment
    number: str  # of the payment
    provider_number: str
    amount_minor: int
    fee_minor: int
    refund_number: str = ""
    refund_provider_number: str = ""
    refund_status: RefundStatus | None = None


class Statements:
    """Makes the lines of a day."""

    def __init__(self, book: Book, scripts: Scripts, fee_bps: int) -> None:
        self._book = book
        self._scripts = scripts
        self._fee_bps = fee_bps

    def of(self, wire: Wire, merchant_id: str, day: date) -> list[StatementLine]:
        """
        List what one merchant's shoppers paid and got back on a day.

        Args:
            wire: over which protocol.
            merchant_id: whose.
            day: in Beijing's time.

        Returns:
            Oldest first.
        """
        lines = [
            line
            for payment in self._book.payments()
            if (payment.wire, payment.merchant_id) == (wire, merchant_id)
            for line in self._lines_of(payment)
            if instant(line.at_ms).astimezone(BEIJING).date() == day
        ]
        return sorted(lines, key=lambda line: (line.at_ms, line.number, line.refund_number))

    def _lines_of(self, payment: Payment) -> Iterator[StatementLine]:
        play = self._scripts.of(payment.number).bill
        if payment.paid_at_ms is None or play is BillPlay.MISSING:
            return
        paid = self._payment_line(payment)
        if play is BillPlay.OTHER_AMOUNT:
            yield replace(paid, amount_minor=paid.amount_minor + 1)
        else:
            yield paid
        if play is BillPlay.EXTRA:
            stranger = _stranger(payment.number)
            provider_number = payment_number_of(payment.wire, stranger, payment.created_at_ms)
            yield replace(paid, number=stranger, provider_number=provider_number)
        for refund in self._book.refunds_of(payment.number):
            yield self._refund_line(payment, refund)

    def _payment_line(self, payment: Payment) -> StatementLine:
        assert payment.paid_at_ms is not None
        return StatementLine(
            kind=LineKind.PAYMENT,
            at_ms=payment.paid_at_ms,
            payment=payment,
            number=payment.number,
            provider_number=payment.provider_number or "",
            amount_minor=payment.captured_minor,
            fee_minor=self._fee_minor(payment.captured_minor),
        )

    def _refund_line(self, payment: Payment, refund: Refund) -> StatementLine:
        """Tell a refund on the day it was accepted; a later end does not change the line."""
        return replace(
            self._payment_line(payment),
            kind=LineKind.REFUND,
            at_ms=refund.created_at_ms,
            amount_minor=refund.amount_minor,
            fee_minor=self._fee_minor(refund.amount_minor),
            refund_number=refund.number,
            refund_provider_number=refund.provider_number
            or refund_number_of(refund.wire, refund.number),
            refund_status=refund.status(self._book.now_ms()),
        )

    def _fee_minor(self, amount_minor: int) -> int:
        """Reckon the fee, halves rounded up; it comes back in proportion with a refund."""
        return (amount_minor * self._fee_bps + 5_000) // 10_000


def _stranger(number: str) -> str:
    """Make up a number that nobody asked for, of the same length as a real one."""
    return hashlib.sha256(number.encode()).hexdigest().upper()[: len(number)]
