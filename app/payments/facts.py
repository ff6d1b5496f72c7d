"""
The facts that payments leave in the outbox for settlement; pure.

kind                 business id     says
payment_captured     attempt number  money came in for an order that took it
late_payment         attempt number  money came in that the order could not take
refund_requested     refund number   money is to go back
refund_succeeded     refund number   money went back
refund_paid_by_hand  refund number   a person paid it out, its provider did not
refund_doubled       refund number   and then its provider did too

`suspense` tells a refund of a late payment, whose money never reached an order.
Instants are RFC 3339 in UTC, amounts are whole minor units of `currency`.
"""

from datetime import datetime

from app.kernel.ids import OrderId
from app.payments.intent import Attempt, Refund, order_of_attempt


def capture_fact(merchant: str, attempt: Attempt, captured_at: datetime) -> dict[str, object]:
    """Write `payment_captured`, and `late_payment` but for its `refund_no`."""
    return {
        "order_id": _order_id(attempt.number),
        "attempt": attempt.number,
        "provider": attempt.provider,
        "merchant": merchant,
        "sale": attempt.order_key.sale,
        "amount_minor": attempt.amount_minor,
        "currency": attempt.currency,
        "captured_at": captured_at.isoformat(timespec="milliseconds"),
    }


def refund_fact(refund: Refund) -> dict[str, object]:
    """Write any fact of a refund."""
    return {
        "refund_no": refund.number,
        "order_id": _order_id(refund.attempt.number),
        "attempt": refund.attempt.number,
        "provider": refund.provider,
        "merchant": refund.merchant,
        "amount_minor": refund.amount_minor,
        "currency": refund.currency,
        "suspense": refund.late,
    }


def _order_id(attempt_number: str) -> OrderId:
    order_id = order_of_attempt(attempt_number)
    assert order_id is not None, attempt_number
    return order_id
