"""
The payments and refunds of every merchant, whichever protocol they came by.

Pure but for the journal it is handed. Time is only looked at when somebody asks:
a payment whose time is over reads as closed, a refund whose time has come as
ended. So nothing has to happen while nobody looks, and a restart changes nothing.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Final

import msgspec

from app.kernel.clock import Clock
from app.kernel.money import EXPONENTS
from app.payments.provider import CAPTURED_STATES, PayState, RefundStatus
from app.sandbox.numbers import payment_number_of
from app.sandbox.records import Payment, Record, Refund, RefundPlay, Script, refund_key
from app.sandbox.scripts import Scripts
from app.sandbox.settings import SandboxSettings

_DAY_MS: Final = 86_400_000
_ENDINGS: Final = {
    RefundPlay.SUCCEED: RefundStatus.SUCCEEDED,
    RefundPlay.ABNORMAL: RefundStatus.ABNORMAL,
    RefundPlay.CLOSED: RefundStatus.CLOSED,
    RefundPlay.HELD: RefundStatus.SUCCEEDED,
}


class Refused(StrEnum):
    """A definite no; each protocol has its own words for it."""

    NOT_FOUND = "not_found"
    NUMBER_USED = "number_used"
    CURRENCY_UNKNOWN = "currency_unknown"
    EXPIRED = "expired"
    FULL = "full"
    ALREADY_PAID = "already_paid"
    NOT_PAID = "not_paid"
    EXCEEDS_PAYMENT = "exceeds_payment"
    NOT_ENOUGH = "not_enough"


def digest(message: object) -> str:
    """Sum up what somebody asked, to know it again."""
    return hashlib.sha256(msgspec.json.encode(message, order="sorted")).hexdigest()


class Book:
    """Payments and refunds."""

    def __init__(
        self,
        settings: SandboxSettings,
        clock: Clock,
        write: Callable[[Record], None],
        scripts: Scripts,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._write = write
        self._scripts = scripts
        self._payments: dict[str, Payment] = {}
        self._refunds: dict[str, Refund] = {}
        self._refunds_of: dict[str, list[str]] = defaultdict(list)
        self._key_of_refund: dict[str, str] = {}

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def remember(self, records: Iterable[Record]) -> None:
        """Take in what an earlier process wrote down, but for what is too old."""
        oldest_ms = self.now_ms() - self._settings.keep_days * _DAY_MS
        refunds = []
        for record in records:
            if isinstance(record, Payment) and record.created_at_ms >= oldest_ms:
                self._payments[record.key] = record
            elif isinstance(record, Refund):
                refunds.append(record)
        for refund in refunds:
            if refund.payment_number in self._payments:
                self._enter(refund)

    def records(self) -> Iterator[Record]:
        """Return everything that is worth writing down again."""
        yield from self._payments.values()
        yield from self._refunds.values()

    def create(self, asked: Payment) -> Payment | Refused:
        """Open a payment; the same request again is the same payment."""
        known = self._payments.get(asked.number)
        if known is not None:
            same = (known.wire, known.content) == (asked.wire, asked.content)
            return self._now(known) if same else Refused.NUMBER_USED
        if asked.currency not in EXPONENTS:
            return Refused.CURRENCY_UNKNOWN
        if asked.expires_at_ms <= self.now_ms():
            return Refused.EXPIRED
        if len(self._payments) >= self._settings.payments_max:
            return Refused.FULL
        return self._keep(asked)

    def payment(self, number: str) -> Payment | Refused:
        """Return a payment as it stands now."""
        known = self._payments.get(number)
        return Refused.NOT_FOUND if known is None else self._now(known)

    def payments(self) -> Iterator[Payment]:
        """Return every payment as it stands now, newest first."""
        return map(self._now, reversed(list(self._payments.values())))

    def open_payments(self, payments_max: int) -> list[Payment]:
        """Return the newest payments that somebody could pay, at most so many."""
        found: list[Payment] = []
        for payment in reversed(self._payments.values()):
            if self._now(payment).state is PayState.NOT_PAID:
                found.append(payment)
                if len(found) == payments_max:
                    break
        return found

    def meet(self, number: str) -> Payment | Refused:
        """Let the shopper see a payment: a code that was scanned is a trade from then on."""
        payment = self.payment(number)
        if isinstance(payment, Refused) or payment.is_met:
            return payment
        return self._keep(msgspec.structs.replace(payment, is_met=True))

    def close(self, number: str) -> Payment | Refused:
        """Let nobody pay any more; a payment that is paid stays paid."""
        payment = self.payment(number)
        if isinstance(payment, Refused) or payment.state is PayState.CLOSED:
            return payment
        if payment.state is not PayState.NOT_PAID:
            return Refused.ALREADY_PAID
        return self._keep(msgspec.structs.replace(payment, state=PayState.CLOSED))

    def pay(self, number: str) -> Payment | Refused:
        """
        Take the shopper's money, even for a payment that is closed.

        Real gateways do that when paying and closing cross; here a tester decides.
        Paying twice takes the money once.
        """
        payment = self.payment(number)
        if isinstance(payment, Refused) or payment.state in CAPTURED_STATES:
            return payment
        return self._keep(self.as_paid(payment, payment.amount_minor))

    def as_paid(self, payment: Payment, amount_minor: int) -> Payment:
        """Describe a payment as if it were paid now; nothing changes by that."""
        return msgspec.structs.replace(
            payment,
            state=PayState.PAID,
            is_met=True,
            provider_number=payment_number_of(payment.wire, payment.number, payment.created_at_ms),
            captured_minor=amount_minor,
            paid_at_ms=self.now_ms(),
        )

    def refund(self, asked: Refund, after_ms: int) -> Refund | Refused:
        """
        Send money back; the same request again is the same refund.

        Args:
            asked: its `ready_at_ms` and `ends_as` are decided here, by the script.
            after_ms: how long a refund takes that is neither held nor refused.
        """
        known = self._refunds.get(asked.key)
        if known is not None:
            return known if known.content == asked.content else Refused.NUMBER_USED
        payment = self.payment(asked.payment_number)
        if isinstance(payment, Refused):
            return payment
        if payment.captured_minor == 0:
            return Refused.NOT_PAID
        left = payment.captured_minor - payment.refunded_minor
        if asked.amount_minor > left or asked.currency != payment.currency:
            return Refused.EXCEEDS_PAYMENT
        return self._begin_refund(asked, self._scripts.of(payment.number), after_ms)

    def _begin_refund(self, asked: Refund, script: Script, after_ms: int) -> Refund | Refused:
        if script.refund is RefundPlay.REFUSED:
            return Refused.NOT_ENOUGH
        held = script.refund is RefundPlay.HELD
        refund = msgspec.structs.replace(
            asked,
            ready_at_ms=None if held else self.now_ms() + after_ms,
            ends_as=_ENDINGS[script.refund],
        )
        self._enter(refund)
        self._write(refund)
        return refund

    def find_refund(self, payment_number: str, number: str) -> Refund | Refused:
        """Return a refund."""
        return self._refunds.get(refund_key(payment_number, number), Refused.NOT_FOUND)

    def refund_by_number(self, number: str) -> Refund | Refused:
        """Return the refund of a number that is unique among all of a gateway."""
        key = self._key_of_refund.get(number)
        return Refused.NOT_FOUND if key is None else self._refunds[key]

    def refunds_of(self, payment_number: str) -> list[Refund]:
        """Return every refund of a payment, oldest first."""
        return [self._refunds[key] for key in self._refunds_of.get(payment_number, ())]

    def refunds(self) -> list[Refund]:
        """Return every refund, oldest first."""
        return list(self._refunds.values())

    def end_refund(self, refund: Refund, ends_as: RefundStatus) -> Refund:
        """Say how a refund ends, and that it has ended now."""
        ended = msgspec.structs.replace(refund, ready_at_ms=self.now_ms(), ends_as=ends_as)
        self._refunds[ended.key] = ended
        self._write(ended)
        return ended

    def _enter(self, refund: Refund) -> None:
        if refund.key not in self._refunds:
            self._refunds_of[refund.payment_number].append(refund.key)
            self._key_of_refund[refund.number] = refund.key
        self._refunds[refund.key] = refund

    def _now(self, payment: Payment) -> Payment:
        if payment.captured_minor == 0:
            expired = payment.expires_at_ms <= self.now_ms()
            if expired and payment.state is PayState.NOT_PAID:
                return msgspec.structs.replace(payment, state=PayState.CLOSED)
            return payment
        refunded_minor = self._refunded_minor(payment)
        if refunded_minor == 0:
            return payment
        whole = refunded_minor == payment.captured_minor
        state = PayState.REFUNDED if whole else PayState.PARTIAL_REFUND
        return msgspec.structs.replace(payment, refunded_minor=refunded_minor, state=state)

    def _refunded_minor(self, payment: Payment) -> int:
        """Add up what goes back or has gone; what was given up is where it was."""
        now_ms = self.now_ms()
        return sum(
            refund.amount_minor
            for refund in self.refunds_of(payment.number)
            if refund.status(now_ms) is not RefundStatus.CLOSED
        )

    def _keep(self, payment: Payment) -> Payment:
        self._payments[payment.key] = payment
        self._write(payment)
        return payment
