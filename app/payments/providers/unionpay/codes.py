"""
What UnionPay's response codes mean for a call and for the thing asked about; pure.

The same two digits answer "did this call come through" (`respCode`) and "how did
that payment fare" (`origRespCode`). What is in no table is UNKNOWN and an alarm.

Source:
    docs/PAYMENTS.md §3 and §4.3; docs/decisions/0019-unionpay.md for the codes
    that are known from the platform's appendix alone.
"""

from datetime import datetime, timedelta
from typing import Final

from app.payments.provider import AttemptReference, Outcome, PayState, RefundStatus

SUCCEEDED: Final = frozenset({"00", "A6"})
ACCEPTED: Final = "05"
NOT_FOUND: Final = "34"

# Timed out, not clear, accepted: a query tells.
_IN_FLIGHT: Final = frozenset({"03", "04", "05", "70"})
# Closed for a while, busy, seen before, asked too often: not this call's end.
_BUSY: Final = frozenset({"02", "06", "12", "37"})
# Refused by the platform, the risk rules or the issuer.
_FAILED: Final = frozenset(
    {
        "01", "10", "11", "13", "14", "30", "31", "32", "33", "34", "35", "36", "38", "39",
        "40", "41", "43", "44", "60", "61", "62", "63", "64", "65", "66", "67", "68", "69",
        "71", "72", "73", "77",
    }
)  # fmt: skip
# Of whoever asked: our signature, the merchant's standing, its rights and its limits.
_ACCOUNT: Final = frozenset({"11", "31", "32", "33", "43"})

# Clocks differ; the platform calls what a query says final once payTimeout is past.
EXPIRY_MARGIN: Final = timedelta(seconds=60)


def outcome_of(code: str) -> Outcome:
    """Say what a signed answer means for the call; see is_known for the alarm."""
    if code in SUCCEEDED:
        return Outcome.CONFIRMED
    if code == ACCEPTED:
        return Outcome.PENDING
    return Outcome.REJECTED if code in _FAILED else Outcome.UNKNOWN


def concerns_account(code: str) -> bool:
    """Whether a refusal is of the merchant account, and not of what was asked."""
    return code in _ACCOUNT


def is_known(code: str) -> bool:
    """Whether a code is in the tables."""
    return code in SUCCEEDED | _IN_FLIGHT | _BUSY | _FAILED


def pay_state_of(code: str) -> PayState:
    """Say how one try to pay fared; a failed one may be followed by another."""
    if code in SUCCEEDED:
        return PayState.PAID
    if code in _IN_FLIGHT:
        return PayState.PAYING
    return PayState.NOT_PAID if code in _FAILED else PayState.UNKNOWN


def settled_state_of(code: str, attempt: AttemptReference, now: datetime) -> PayState:
    """
    Say how a payment fared: a failed try ends it once its time is up.

    UnionPay has no call that closes an unpaid payment, so its end is the
    `payTimeout` that it was opened with.
    """
    state = pay_state_of(code)
    if state is not PayState.NOT_PAID or attempt.expires_at is None:
        return state
    return PayState.CLOSED if now >= attempt.expires_at + EXPIRY_MARGIN else state


def refund_status_of(code: str) -> RefundStatus:
    """Say how a refund fared."""
    if code in SUCCEEDED:
        return RefundStatus.SUCCEEDED
    if code in _IN_FLIGHT:
        return RefundStatus.PROCESSING
    return RefundStatus.CLOSED if code in _FAILED else RefundStatus.UNKNOWN
