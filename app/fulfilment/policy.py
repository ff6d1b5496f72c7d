"""What a sale's merchant has decided about its paid orders; pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.orders.order import Order, OrderState


class Refundable(StrEnum):
    """Whether a shopper who cancels a paid order gets the money back."""

    NONE = "none"
    BEFORE_SHIPPING = "before_shipping"
    WINDOW = "window"  # so long after the payment, and not once it is shipped


class ReviewRule(StrEnum):
    """Which paid orders an operator looks at before they are shipped."""

    NONE = "none"
    EVERY = "every"
    FROM_AMOUNT = "from_amount"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The policy of one sale.

    Attributes:
        refund_window_seconds: from the payment; with `window` alone.
        review_from_minor: the smallest total that is reviewed; with `from_amount` alone.
        confirm_after_seconds: from the shipping; then a silent shopper has received it.
    """

    refundable: Refundable
    refund_window_seconds: int | None
    review: ReviewRule
    review_from_minor: int | None
    confirm_after_seconds: int

    def needs_review(self, order: Order) -> bool:
        """Say whether an operator must approve this order before it is shipped."""
        if self.review is ReviewRule.FROM_AMOUNT:
            assert self.review_from_minor is not None
            return order.total_minor >= self.review_from_minor
        return self.review is ReviewRule.EVERY

    def gives_back(self, order: Order, now: datetime) -> bool:
        """Say whether the shopper may still cancel this paid order and be refunded."""
        if order.state is not OrderState.PAID or self.refundable is Refundable.NONE:
            return False
        if self.refundable is Refundable.BEFORE_SHIPPING:
            return True
        assert self.refund_window_seconds is not None
        assert order.paid_at is not None
        return now < order.paid_at + timedelta(seconds=self.refund_window_seconds)


def faults_of_policy(policy: Policy) -> list[tuple[str, str]]:
    """Return every rule that the policy breaks, as (path, message)."""
    faults = []
    if (policy.refundable is Refundable.WINDOW) != (policy.refund_window_seconds is not None):
        faults.append(("$.refund_window_seconds", "belongs to refundable = window, and only there"))
    if (policy.review is ReviewRule.FROM_AMOUNT) != (policy.review_from_minor is not None):
        faults.append(("$.review_from_minor", "belongs to review = from_amount, and only there"))
    return faults
