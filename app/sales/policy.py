"""What a merchant decides about a sale's paid orders: refunds, review, receipt; pure."""

from dataclasses import dataclass
from enum import StrEnum


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
class PolicyTerms:
    """
    The policy of one sale, as its row says it; what it means for an order is fulfilment's part.

    Attributes:
        refund_window_seconds: from the payment; with `window` alone.
        review_from_minor: the smallest total that is reviewed; with `from_amount` alone.
        confirm_after_seconds: from the shipping; then a silent shopper has received it.
    """

    refundable: Refundable = Refundable.NONE
    refund_window_seconds: int | None = None
    review: ReviewRule = ReviewRule.NONE
    review_from_minor: int | None = None
    confirm_after_seconds: int = 864_000


def faults_of_policy(policy: PolicyTerms) -> list[tuple[str, str]]:
    """Return every rule that the policy breaks, as (path, message)."""
    faults = []
    if (policy.refundable is Refundable.WINDOW) != (policy.refund_window_seconds is not None):
        faults.append(("$.refund_window_seconds", "belongs to refundable = window, and only there"))
    if (policy.review is ReviewRule.FROM_AMOUNT) != (policy.review_from_minor is not None):
        faults.append(("$.review_from_minor", "belongs to review = from_amount, and only there"))
    return faults
