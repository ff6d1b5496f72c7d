"""
After-sale cases: what a shopper wants made good once the goods are on their way; pure.

Three kinds, each with a table of its own over the same states and events: money
back for less than was promised, goods back for money, goods back for other goods.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.kernel.ids import OrderKey
from app.kernel.machine import Machine


class AfterSaleKind(StrEnum):
    """What the shopper wants."""

    REFUND = "refund"  # a part of the money; the goods stay
    RETURN_AND_REFUND = "return_and_refund"
    EXCHANGE = "exchange"


class AfterSaleReason(StrEnum):
    """Why. A word of a list: free text would hold names and numbers."""

    QUALITY = "quality"
    DAMAGED = "damaged"
    WRONG_GOODS = "wrong_goods"
    NOT_WANTED = "not_wanted"
    OTHER = "other"


class AfterSaleState(StrEnum):
    """Where a case stands."""

    REQUESTED = "requested"
    APPROVED = "approved"  # the shopper may send the goods back
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    GOODS_SENT = "goods_sent"  # by the shopper
    RESENT = "resent"  # by the merchant: other goods
    SETTLED = "settled"  # refunded, or the other goods have arrived


class AfterSaleEvent(StrEnum):
    """What can happen to a case."""

    APPROVE = "approve"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"
    SEND_GOODS = "send_goods"
    RESEND = "resend"
    SETTLE = "settle"


REFUND_CASE: Final = Machine(
    name="after-sale refund",
    start=AfterSaleState.REQUESTED,
    moves={
        (AfterSaleState.REQUESTED, AfterSaleEvent.SETTLE): AfterSaleState.SETTLED,
        (AfterSaleState.REQUESTED, AfterSaleEvent.REFUSE): AfterSaleState.REFUSED,
        (AfterSaleState.REQUESTED, AfterSaleEvent.WITHDRAW): AfterSaleState.WITHDRAWN,
    },
)

_GOODS_BACK: Final = {
    (AfterSaleState.REQUESTED, AfterSaleEvent.APPROVE): AfterSaleState.APPROVED,
    (AfterSaleState.REQUESTED, AfterSaleEvent.REFUSE): AfterSaleState.REFUSED,
    (AfterSaleState.REQUESTED, AfterSaleEvent.WITHDRAW): AfterSaleState.WITHDRAWN,
    (AfterSaleState.APPROVED, AfterSaleEvent.WITHDRAW): AfterSaleState.WITHDRAWN,
    (AfterSaleState.APPROVED, AfterSaleEvent.SEND_GOODS): AfterSaleState.GOODS_SENT,
    # What came back is not what was sold.
    (AfterSaleState.GOODS_SENT, AfterSaleEvent.REFUSE): AfterSaleState.REFUSED,
}

RETURN_CASE: Final = Machine(
    name="after-sale return",
    start=AfterSaleState.REQUESTED,
    moves={
        **_GOODS_BACK,
        (AfterSaleState.GOODS_SENT, AfterSaleEvent.SETTLE): AfterSaleState.SETTLED,
    },
)

EXCHANGE_CASE: Final = Machine(
    name="after-sale exchange",
    start=AfterSaleState.REQUESTED,
    moves={
        **_GOODS_BACK,
        (AfterSaleState.GOODS_SENT, AfterSaleEvent.RESEND): AfterSaleState.RESENT,
        (AfterSaleState.RESENT, AfterSaleEvent.SETTLE): AfterSaleState.SETTLED,
    },
)

CASES: Final[Mapping[AfterSaleKind, Machine[AfterSaleState, AfterSaleEvent]]] = {
    AfterSaleKind.REFUND: REFUND_CASE,
    AfterSaleKind.RETURN_AND_REFUND: RETURN_CASE,
    AfterSaleKind.EXCHANGE: EXCHANGE_CASE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Goods under way: who carries them, and by which number they are found."""

    carrier: str
    tracking_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterSale:
    """One row of after_sales; `amount_minor` is what goes back, 0 for an exchange."""

    order_key: OrderKey
    ordinal: int
    kind: AfterSaleKind
    state: AfterSaleState
    reason: AfterSaleReason
    quantity: int
    amount_minor: int
    fingerprint: bytes
    returned_by: Parcel | None
    resent_by: Parcel | None
    refund_number: str | None
    asked_at: datetime
    changed_at: datetime

    @property
    def is_open(self) -> bool:
        """Whether anything can still happen to it."""
        return self.state not in CASES[self.kind].finals()

    def after(self, event: AfterSaleEvent) -> AfterSaleState | None:
        """Say where `event` leads; None if the table of its kind does not allow it now."""
        return CASES[self.kind].moves.get((self.state, event))

    def has_had(self, event: AfterSaleEvent) -> bool:
        """Say whether this event is what brought the case where it is: a repeat of it."""
        return any(
            moved == event and target == self.state
            for (_, moved), target in CASES[self.kind].moves.items()
        )
