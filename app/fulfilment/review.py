"""An operator's look at a paid order before it is shipped; pure."""

from enum import StrEnum
from typing import Final

from app.kernel.machine import Machine


class ReviewState(StrEnum):
    """Where a review stands; an order that needs one and has no row is waiting."""

    WAITING = "waiting"
    HELD = "held"
    APPROVED = "approved"
    REJECTED = "rejected"


class Decision(StrEnum):
    """What an operator decides."""

    APPROVE = "approve"
    HOLD = "hold"
    REJECT = "reject"


REVIEW_MACHINE: Final = Machine(
    name="review",
    start=ReviewState.WAITING,
    moves={
        (ReviewState.WAITING, Decision.APPROVE): ReviewState.APPROVED,
        (ReviewState.WAITING, Decision.HOLD): ReviewState.HELD,
        (ReviewState.WAITING, Decision.REJECT): ReviewState.REJECTED,
        (ReviewState.HELD, Decision.APPROVE): ReviewState.APPROVED,
        (ReviewState.HELD, Decision.REJECT): ReviewState.REJECTED,
        # A second thought, as long as the goods have not left.
        (ReviewState.APPROVED, Decision.HOLD): ReviewState.HELD,
        (ReviewState.APPROVED, Decision.REJECT): ReviewState.REJECTED,
    },
)
