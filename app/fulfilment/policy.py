"""What a sale's policy means for one paid order; pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.orders.order import Order, OrderState
from app.sales.policy import PolicyTerms, Refundable, ReviewRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(PolicyTerms):
    """The policy of one sale, applied to its orders."""

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
