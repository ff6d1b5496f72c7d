"""
What the gateway knows and how it changes; no I/O but the journal it is handed.

Time is only looked at when somebody asks: a payment whose time is over reads as
closed, a refund whose time has come as succeeded. So nothing has to happen while
nobody looks, and a restart changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from app.kernel.clock import Clock, instant, unix_ms
from app.kernel.money import EXPONENTS
from app.payments.provider import CAPTURED_STATES, PayState
from app.payments.providers.sandbox_wire import (
    NOT_FOUND_CODE,
    CallbackMessage,
    CreatePayment,
    CreateRefund,
    PaymentMessage,
    RefundMessage,
)
from app.sandbox.records import Callback, Payment, Record, Refund
from app.sandbox.settings import SandboxSettings

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Refused:
    """A definite no, told with a signature; a status of 500 and above means "ask later"."""

    status: int
    code: str


NOT_FOUND: Final = Refused(404, NOT_FOUND_CODE)


class Gateway:
    """Payments and refunds of one merchant."""

    def __init__(
        self,
        settings: SandboxSettings,
        clock: Clock,
        write: Callable[[Record], None],
        page_of: Callable[[str], str],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._write = write
        self._page_of = page_of
        self._payments: dict[str, Payment] = {}
        self._refunds: dict[str, Refund] = {}

    def remember(self, records: Iterable[Record]) -> None:
        """Take in what an earlier process wrote down, but for what is too old."""
        oldest_ms = self._clock.now_ms() - self._settings.keep_days * _DAY_MS
        for record in records:
            if isinstance(record, Payment) and record.created_at_ms >= oldest_ms:
                self._payments[record.key] = record
        for record in records:
            if isinstance(record, Refund) and record.request.payment_number in self._payments:
                self._refunds[record.key] = record

    def records(self) -> Iterator[Record]:
        """Return everything that is worth writing down again."""
        yield from self._payments.values()
        yield from self._refunds.values()

    def create(self, request: CreatePayment) -> Payment | Refused:
        """Open a payment; the same request again is the same payment."""
        if not self._is_ours(request.merchant_id, request.app_id):
            return Refused(403, "ACCOUNT_MISMATCH")
        known = self._payments.get(request.number)
        if known is not None:
            return self._now(known) if known.request == request else Refused(403, "NUMBER_USED")
        if request.currency not in EXPONENTS:
            return Refused(400, "CURRENCY_UNKNOWN")
        now_ms = self._clock.now_ms()
        if unix_ms(request.expires_at) <= now_ms:
            return Refused(400, "EXPIRED")
        if len(self._payments) >= self._settings.payments_max:
            return Refused(503, "FULL")
        return self._keep(Payment(request=request, created_at_ms=now_ms))

    def payment(self, number: str) -> Payment | Refused:
        """Return a payment as it stands now."""
        known = self._payments.get(number)
        return NOT_FOUND if known is None else self._now(known)

    def open_payments(self, payments_max: int) -> list[Payment]:
        """Return the newest payments that somebody could pay, at most so many."""
        found: list[Payment] = []
        for payment in reversed(self._payments.values()):
            if self._now(payment).state is PayState.NOT_PAID:
                found.append(payment)
                if len(found) == payments_max:
                    break
        return found

    def close(self, number: str) -> Payment | Refused:
        """Let nobody pay any more; a payment that is paid stays paid."""
        payment = self.payment(number)
        if isinstance(payment, Refused) or payment.state is PayState.CLOSED:
            return payment
        if payment.state is not PayState.NOT_PAID:
            return Refused(409, "ALREADY_PAID")
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
        return self._keep(self.as_paid(payment, payment.request.amount_minor))

    def as_paid(self, payment: Payment, amount_minor: int) -> Payment:
        """Describe a payment as if it were paid now; nothing changes by that."""
        return msgspec.structs.replace(
            payment,
            state=PayState.PAID,
            provider_number=f"SBP{payment.key}",
            captured_minor=amount_minor,
            paid_at_ms=self._clock.now_ms(),
        )

    def refund(self, request: CreateRefund) -> Refund | Refused:
        """Send money back; the same request again is the same refund."""
        if request.merchant_id != self._settings.merchant_id:
            return Refused(403, "ACCOUNT_MISMATCH")
        known = self._refunds.get(request.number)
        if known is not None:
            return known if known.request == request else Refused(403, "NUMBER_USED")
        payment = self.payment(request.payment_number)
        if isinstance(payment, Refused):
            return payment
        left = payment.captured_minor - payment.refunded_minor
        if request.amount_minor > left or request.currency != payment.request.currency:
            return Refused(403, "REFUND_EXCEEDS_PAYMENT")
        return self._begin_refund(payment, request)

    def _begin_refund(self, payment: Payment, request: CreateRefund) -> Refund:
        refunded_minor = payment.refunded_minor + request.amount_minor
        whole = refunded_minor == payment.captured_minor
        refund = Refund(
            request=request,
            provider_number=f"SBR{request.number}",
            ready_at_ms=self._clock.now_ms() + self._settings.refund_after_ms,
        )
        self._refunds[refund.key] = refund
        self._write(refund)
        self._keep(
            msgspec.structs.replace(
                payment,
                refunded_minor=refunded_minor,
                state=PayState.REFUNDED if whole else PayState.PARTIAL_REFUND,
            )
        )
        return refund

    def find_refund(self, number: str) -> Refund | Refused:
        """Return a refund."""
        return self._refunds.get(number, NOT_FOUND)

    def tell_payment(self, payment: Payment) -> PaymentMessage:
        """Say what is so about a payment."""
        request = payment.request
        return PaymentMessage(
            number=request.number,
            merchant_id=request.merchant_id,
            app_id=request.app_id,
            state=payment.state,
            amount_minor=payment.captured_minor or request.amount_minor,
            currency=request.currency,
            page=self._page_of(request.number),
            provider_number=payment.provider_number,
            paid_at=None if payment.paid_at_ms is None else instant(payment.paid_at_ms),
        )

    def tell_refund(self, refund: Refund, at_ms: int | None = None) -> RefundMessage:
        """Say what is so about a refund, now or at another moment."""
        request = refund.request
        return RefundMessage(
            number=request.number,
            payment_number=request.payment_number,
            merchant_id=request.merchant_id,
            status=refund.status(self._clock.now_ms() if at_ms is None else at_ms),
            amount_minor=request.amount_minor,
            currency=request.currency,
            provider_number=refund.provider_number,
        )

    def payment_callback(self, payment: Payment, delay_ms: int) -> Callback:
        """Write the notification of a payment's state; repeats carry the same id."""
        now_ms = self._clock.now_ms()
        message = CallbackMessage(
            id=f"evt-{payment.key}-{payment.state}-{payment.captured_minor}",
            created_at=instant(now_ms),
            payment=self.tell_payment(payment),
        )
        return _callback(message, payment.request.callback_url, now_ms + delay_ms)

    def refund_callback(self, refund: Refund) -> Callback:
        """Write the notification that a refund has succeeded, due when it has."""
        at_ms = refund.ready_at_ms
        message = CallbackMessage(
            id=f"evt-{refund.key}",
            created_at=instant(at_ms),
            refund=self.tell_refund(refund, at_ms),
        )
        return _callback(message, refund.request.callback_url, at_ms)

    def _is_ours(self, merchant_id: str, app_id: str) -> bool:
        settings = self._settings
        return (merchant_id, app_id) == (settings.merchant_id, settings.app_id)

    def _now(self, payment: Payment) -> Payment:
        expired = unix_ms(payment.request.expires_at) <= self._clock.now_ms()
        if expired and payment.state is PayState.NOT_PAID:
            return msgspec.structs.replace(payment, state=PayState.CLOSED)
        return payment

    def _keep(self, payment: Payment) -> Payment:
        self._payments[payment.key] = payment
        self._write(payment)
        return payment


def _callback(message: CallbackMessage, url: str, due_at_ms: int) -> Callback:
    body = msgspec.json.encode(message).decode()
    return Callback(id=message.id, url=url, body=body, due_at_ms=due_at_ms)
