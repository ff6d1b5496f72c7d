"""How a payment and a refund look from outside."""

from enum import StrEnum
from typing import Any

import msgspec

from app.kernel.ids import OrderKey
from app.payments import store
from app.payments.intent import Attempt, AttemptState, Refund
from app.storage.shards import Shards


class PaymentStatus(StrEnum):
    """The states of a payment that a client gets to see."""

    CREATED = "created"
    OPEN = "open"
    PAID = "paid"
    CLOSED = "closed"
    PAID_LATE = "paid_late"
    UNKNOWN = "unknown"  # the provider has not answered; asking again is safe


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One payment of an order; `action` says how to pay while it is open."""

    payment_id: str
    provider: str
    product: str
    status: PaymentStatus
    amount_minor: int
    currency: str
    action: dict[str, Any] | None
    expires_at: str


class RefundView(msgspec.Struct, frozen=True, kw_only=True):
    """One refund of a payment."""

    refund_id: str
    payment_id: str
    status: str
    amount_minor: int
    currency: str
    reason: str
    requested_at: str


async def payments_of_order(
    shards: Shards, key: OrderKey
) -> tuple[list[PaymentView], list[RefundView]]:
    """
    Return the payments and refunds of one order, the first ones first.

    Raises:
        ShardUnavailable: the order's shard did not answer.
    """
    async with shards.of(key.sale, key.bucket).connection() as connection:
        attempts = await store.attempts_of_order(connection, key)
        captured = any(attempt.is_captured for attempt in attempts)
        refunds = await store.refunds_of_order(connection, key) if captured else []
    return [view_payment(attempt) for attempt in attempts], [view_refund(one) for one in refunds]


def view_payment(attempt: Attempt, status: PaymentStatus | None = None) -> PaymentView:
    """Describe an attempt; `status` when more is known than its row says."""
    is_open = attempt.state is AttemptState.OPEN
    return PaymentView(
        payment_id=attempt.number,
        provider=attempt.provider,
        product=attempt.product,
        status=_status(attempt) if status is None else status,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        action=dict(attempt.action) if is_open and attempt.action is not None else None,
        expires_at=attempt.expires_at.isoformat().replace("+00:00", "Z"),
    )


def view_refund(refund: Refund) -> RefundView:
    return RefundView(
        refund_id=refund.number,
        payment_id=refund.attempt.number,
        status=refund.state,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
        requested_at=refund.requested_at.isoformat().replace("+00:00", "Z"),
    )


def _status(attempt: Attempt) -> PaymentStatus:
    """Tell the state; an attempt that its provider never heard of is as good as closed."""
    if attempt.state is AttemptState.NOT_SENT:
        return PaymentStatus.CLOSED
    return PaymentStatus(attempt.state)
