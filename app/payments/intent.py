"""
What a payment attempt and a refund may become, and what a message may change.

Pure rules: the two state machines, the numbers that providers get to see, the
schedule of enquiries, and the one place where amount, currency and account of a
provider's message are compared with ours. `payments.capture` applies them.

Source:
    docs/PAYMENTS.md §4 and §6.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NewType

from app.kernel.ids import ORDER_ID_LENGTH, OrderId, OrderKey
from app.kernel.machine import Machine
from app.payments.provider import (
    CAPTURED_STATES,
    AttemptReference,
    MerchantAccount,
    PaySnapshot,
    RefundRequest,
    RefundSnapshot,
)
from app.payments.settings import PaymentSettings

AttemptNumber = NewType("AttemptNumber", str)
RefundNumber = NewType("RefundNumber", str)

ORDINAL_MAX: Final = 99


class AttemptState(StrEnum):
    """Where one payment attempt stands (the SQL type attempt_state)."""

    CREATED = "created"  # the row is committed, the provider may or may not know of it
    OPEN = "open"  # the provider gave an action: the shopper can pay
    NOT_SENT = "not_sent"  # the provider surely never heard of it
    PAID = "paid"
    CLOSED = "closed"  # the provider says: nobody can pay this any more
    PAID_LATE = "paid_late"  # money came that the order cannot take; it is refunded


class AttemptEvent(StrEnum):
    """What can happen to an attempt."""

    OPENED = "opened"
    NEVER_SENT = "never_sent"
    CAPTURED = "captured"
    CAPTURED_LATE = "captured_late"
    PROVIDER_CLOSED = "provider_closed"


# A capture is a fact about money and is never argued with: it may arrive before
# the answer to our create call, and after the provider called the attempt closed.
_PAYABLE: Final = (
    AttemptState.CREATED,
    AttemptState.OPEN,
    AttemptState.NOT_SENT,
    AttemptState.CLOSED,
)

ATTEMPT_MACHINE: Final = Machine(
    name="payment attempt",
    start=AttemptState.CREATED,
    moves={
        (AttemptState.CREATED, AttemptEvent.OPENED): AttemptState.OPEN,
        (AttemptState.CREATED, AttemptEvent.NEVER_SENT): AttemptState.NOT_SENT,
        (AttemptState.CREATED, AttemptEvent.PROVIDER_CLOSED): AttemptState.CLOSED,
        (AttemptState.OPEN, AttemptEvent.PROVIDER_CLOSED): AttemptState.CLOSED,
        **{(state, AttemptEvent.CAPTURED): AttemptState.PAID for state in _PAYABLE},
        **{(state, AttemptEvent.CAPTURED_LATE): AttemptState.PAID_LATE for state in _PAYABLE},
    },
)


class RefundState(StrEnum):
    """Where one refund stands (the SQL type refund_state)."""

    REQUESTED = "requested"
    SENT = "sent"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    ABNORMAL = "abnormal"


class RefundEvent(StrEnum):
    """What can happen to a refund."""

    SENDING = "sending"  # committed before the provider is called
    ANSWER_LOST = "answer_lost"
    PROVIDER_SUCCEEDED = "provider_succeeded"
    PROVIDER_REFUSED = "provider_refused"
    RETRY_ASKED = "retry_asked"  # an operator has seen to the cause
    PAID_BY_HAND = "paid_by_hand"  # a person paid it out, and shows the proof


REFUND_MACHINE: Final = Machine(
    name="refund",
    start=RefundState.REQUESTED,
    moves={
        (RefundState.REQUESTED, RefundEvent.SENDING): RefundState.SENT,
        (RefundState.SENT, RefundEvent.ANSWER_LOST): RefundState.UNKNOWN,
        (RefundState.SENT, RefundEvent.PROVIDER_SUCCEEDED): RefundState.SUCCEEDED,
        (RefundState.SENT, RefundEvent.PROVIDER_REFUSED): RefundState.ABNORMAL,
        (RefundState.UNKNOWN, RefundEvent.SENDING): RefundState.SENT,
        # The answer that was lost is told by a query or a callback.
        (RefundState.UNKNOWN, RefundEvent.PROVIDER_SUCCEEDED): RefundState.SUCCEEDED,
        (RefundState.UNKNOWN, RefundEvent.PROVIDER_REFUSED): RefundState.ABNORMAL,
        # An operator settled it at the provider; its message says so.
        (RefundState.ABNORMAL, RefundEvent.PROVIDER_SUCCEEDED): RefundState.SUCCEEDED,
        # Or an operator lets it be sent again, with the number that it has.
        (RefundState.ABNORMAL, RefundEvent.RETRY_ASKED): RefundState.REQUESTED,
        (RefundState.ABNORMAL, RefundEvent.PAID_BY_HAND): RefundState.SUCCEEDED,
    },
)


class RefundReason(StrEnum):
    """Why money goes back; each has a letter in the refund's number."""

    LATE_PAYMENT = "late_payment"  # the order was closed
    DOUBLE_PAYMENT = "double_payment"  # another attempt had paid it
    CANCELLED = "cancelled"  # by the shopper, where the sale's policy allows it
    REVIEW_REJECTED = "review_rejected"  # an operator will not ship it
    AFTER_SALE = "after_sale"  # an after-sale case was settled
    GROUP_FAILED = "group_failed"  # its group did not fill in time
    OPERATOR = "operator"  # somebody asked for it, in words of their own


_REASON_LETTERS: Final = {
    RefundReason.LATE_PAYMENT: "L",
    RefundReason.DOUBLE_PAYMENT: "D",
    RefundReason.CANCELLED: "C",
    RefundReason.REVIEW_REJECTED: "V",
    RefundReason.AFTER_SALE: "A",
    RefundReason.GROUP_FAILED: "G",
    RefundReason.OPERATOR: "O",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row of payment_attempts."""

    number: AttemptNumber
    order_key: OrderKey
    ordinal: int
    idempotency_key: str
    fingerprint: bytes
    provider: str
    account: str
    product: str
    amount_minor: int
    currency: str
    state: AttemptState
    action: Mapping[str, object] | None
    provider_number: str | None
    captured_minor: int
    refunded_minor: int
    expires_at: datetime
    created_at: datetime
    queries: int

    @property
    def route(self) -> tuple[str, str]:
        """The provider and the name of our account there."""
        return self.provider, self.account

    @property
    def is_live(self) -> bool:
        """Whether somebody may still be paying it."""
        return self.state in (AttemptState.CREATED, AttemptState.OPEN)

    @property
    def is_captured(self) -> bool:
        """Whether money came in by it."""
        return self.state in (AttemptState.PAID, AttemptState.PAID_LATE)

    def reference(self) -> AttemptReference:
        return AttemptReference(
            number=self.number,
            provider_number=self.provider_number,
            amount_minor=self.amount_minor,
            currency=self.currency,
            created_at=self.created_at,
            expires_at=self.expires_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """One row of refunds, with what its attempt says of the provider."""

    number: RefundNumber
    order_key: OrderKey
    attempt: AttemptReference
    provider: str
    account: str
    merchant: str
    reason: RefundReason
    late: bool
    amount_minor: int
    currency: str
    state: RefundState
    tries: int
    requested_at: datetime
    fingerprint: bytes | None = None  # of what an operator asked for under a key
    note: str | None = None  # in the operator's words
    by_hand: str | None = None  # the proof of a person who paid it out
    doubled: bool = False  # and its provider says that it paid it too

    def request(self) -> RefundRequest:
        return RefundRequest(
            number=self.number,
            attempt=self.attempt,
            amount_minor=self.amount_minor,
            currency=self.currency,
            reason=self.note or self.reason,
            requested_at=self.requested_at,
        )


_ATTEMPT_NUMBER: Final = re.compile(r"([0-9A-Z]{26})([0-9]{2})", re.ASCII)
_REFUND_NUMBER: Final = re.compile(r"R([0-9A-Z]{28})[A-Z][0-9]{2}", re.ASCII)


def attempt_number(order_id: OrderId, ordinal: int) -> AttemptNumber:
    """Name the order's n-th attempt, 1..99: 28 alphanumerics fit every provider's rules."""
    assert len(order_id) == ORDER_ID_LENGTH
    assert 1 <= ordinal <= ORDINAL_MAX
    return AttemptNumber(f"{order_id}{ordinal:02d}")


def order_of_attempt(number: str) -> OrderId | None:
    """Read the order's id out of an attempt's number; None for anything we never wrote."""
    match = _ATTEMPT_NUMBER.fullmatch(number)
    return OrderId(match[1]) if match and match[2] != "00" else None


def attempt_of_refund(number: str) -> AttemptNumber | None:
    """Read the attempt's number out of a refund's; None for anything we never wrote."""
    match = _REFUND_NUMBER.fullmatch(number)
    return AttemptNumber(match[1]) if match else None


def refund_number(attempt: AttemptNumber, reason: RefundReason, ordinal: int) -> RefundNumber:
    """
    Name a refund by what it undoes: a crash that repeats the act repeats the number.

    `R`, the attempt, a letter for the reason, two digits: 32 alphanumerics.
    """
    assert 1 <= ordinal <= ORDINAL_MAX
    return RefundNumber(f"R{attempt}{_REASON_LETTERS[reason]}{ordinal:02d}")


def next_query_at(
    queries: int, now: datetime, expires_at: datetime, settings: PaymentSettings
) -> datetime:
    """
    Decide when to ask about an attempt next, after `queries` questions.

    Never later than just after its expiry, when the answer begins to matter.
    """
    if now >= expires_at:
        return now + timedelta(milliseconds=settings.query_expired_pause_ms)
    pause_ms = settings.query_pauses_ms[min(queries, len(settings.query_pauses_ms) - 1)]
    end = expires_at + timedelta(milliseconds=settings.query_after_expiry_ms)
    return min(now + timedelta(milliseconds=pause_ms), end)


def start_margin(placed_at: datetime, pay_by: datetime, margin_max: timedelta) -> timedelta:
    """
    Say how long before `pay_by` no new attempt is opened.

    A minute by default (WeChat Pay wants `time_expire` a minute ahead), and never
    more than a quarter of the time to pay, which embedded sales count in seconds.
    """
    return min(margin_max, (pay_by - placed_at) / 4)


class Check(StrEnum):
    """Whether a provider's message is about what we asked for."""

    ACCEPTED = "accepted"
    AMOUNT_MISMATCH = "amount_mismatch"
    CURRENCY_MISMATCH = "currency_mismatch"
    ACCOUNT_MISMATCH = "account_mismatch"


def check_payment(
    attempt: Attempt, account: MerchantAccount, provider: str, snapshot: PaySnapshot
) -> Check:
    """
    Compare what a provider says of a payment with the attempt it names.

    The only such check, for every provider, callbacks and queries alike. Types
    are compared strictly: True is not 1 here. `account` is the attempt's own,
    whatever route the message came by.
    """
    assert snapshot.number == attempt.number
    if provider != attempt.provider or not _is_from(account, snapshot.merchant_id):
        return Check.ACCOUNT_MISMATCH
    if snapshot.app_id != account.app_id:
        return Check.ACCOUNT_MISMATCH
    if snapshot.state not in CAPTURED_STATES:
        return Check.ACCEPTED
    if not snapshot.provider_number:
        return Check.ACCOUNT_MISMATCH
    return _check_amount(snapshot, attempt.amount_minor, attempt.currency)


def check_refund(
    refund: Refund, account: MerchantAccount, provider: str, snapshot: RefundSnapshot
) -> Check:
    """Compare what a provider says of a refund with ours; see check_payment."""
    assert snapshot.number == refund.number
    if provider != refund.provider or not _is_from(account, snapshot.merchant_id):
        return Check.ACCOUNT_MISMATCH
    if snapshot.attempt_number != refund.attempt.number:
        return Check.ACCOUNT_MISMATCH
    return _check_amount(snapshot, refund.amount_minor, refund.currency)


def _is_from(account: MerchantAccount, merchant_id: str) -> bool:
    return bool(merchant_id) and merchant_id == account.merchant_id


def _check_amount(
    snapshot: PaySnapshot | RefundSnapshot, amount_minor: int, currency: str
) -> Check:
    if type(snapshot.amount_minor) is not int or snapshot.amount_minor != amount_minor:
        return Check.AMOUNT_MISMATCH
    if snapshot.currency != currency:
        return Check.CURRENCY_MISMATCH
    return Check.ACCEPTED
