"""
The facts that settlement posts, as the outbox of a shard tells them.

Read strictly in what a posting needs; a field that no rule uses is ignored, so
that a stage before this one may tell more without asking.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import msgspec

from app.kernel.money import AMOUNT_MINOR_MAX
from app.settlement.chart import MERCHANT_LENGTH_MAX
from app.settlement.errors import UnreadableFact

OWN_GOODS: Final = ""
"""The merchant of goods that the shop sells itself."""

_Number: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Provider: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]
_Merchant: TypeAlias = Annotated[str, msgspec.Meta(max_length=MERCHANT_LENGTH_MAX)]
_Currency: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
_Minor: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=AMOUNT_MINOR_MAX)]
_Instant: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class FactKind(StrEnum):
    """The outbox rows that settlement takes."""

    PAYMENT_CAPTURED = "payment_captured"
    LATE_PAYMENT = "late_payment"
    REFUND_REQUESTED = "refund_requested"
    REFUND_SUCCEEDED = "refund_succeeded"
    REFUND_CLOSED = "refund_closed"
    REFUND_PAID_BY_HAND = "refund_paid_by_hand"
    REFUND_DOUBLED = "refund_doubled"


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """Money that a provider took for us, in time or late."""

    order_id: _Number
    attempt: _Number
    provider: _Provider
    merchant: _Merchant
    amount_minor: _Minor
    currency: _Currency
    captured_at: _Instant


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money on its way back; `suspense` when it was never recognised."""

    refund_no: _Number
    order_id: _Number
    attempt: _Number
    provider: _Provider
    merchant: _Merchant
    amount_minor: _Minor
    currency: _Currency
    suspense: bool


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One outbox row, read."""

    kind: FactKind
    told: Capture | Refund
    recorded_at: datetime

    @property
    def capture(self) -> Capture:
        """What a capture tells."""
        assert isinstance(self.told, Capture)
        return self.told

    @property
    def refund(self) -> Refund:
        """What a refund tells."""
        assert isinstance(self.told, Refund)
        return self.told

    @property
    def takes_back_tax(self) -> bool:
        """Whether its posting depends on the order's earlier refunds."""
        if self.kind not in {FactKind.REFUND_SUCCEEDED, FactKind.REFUND_PAID_BY_HAND}:
            return False
        return self.refund.merchant == OWN_GOODS and not self.refund.suspense


def read_fact(kind: str, payload: object, recorded_at: datetime) -> Fact:
    """
    Read one outbox row.

    Raises:
        UnreadableFact: a field is missing, of another type, or out of bounds.
    """
    try:
        known = FactKind(kind)
        told = msgspec.convert(payload, _SHAPES[known])
    except (ValueError, msgspec.ValidationError) as error:
        raise UnreadableFact(kind=kind, why=str(error)) from error
    return Fact(kind=known, told=told, recorded_at=recorded_at)


_SHAPES: Final[Mapping[FactKind, type[Capture | Refund]]] = {
    FactKind.PAYMENT_CAPTURED: Capture,
    FactKind.LATE_PAYMENT: Capture,
    FactKind.REFUND_REQUESTED: Refund,
    FactKind.REFUND_SUCCEEDED: Refund,
    FactKind.REFUND_CLOSED: Refund,
    FactKind.REFUND_PAID_BY_HAND: Refund,
    FactKind.REFUND_DOUBLED: Refund,
}
