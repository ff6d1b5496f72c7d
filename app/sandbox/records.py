"""What the gateway remembers: the lines of its journal."""

from typing import TypeAlias

import msgspec

from app.payments.provider import PayState, RefundStatus
from app.payments.providers.sandbox_wire import CreatePayment, CreateRefund


class Payment(msgspec.Struct, tag="payment", kw_only=True, frozen=True):
    """One payment; a change is a new record with the same number."""

    request: CreatePayment
    created_at_ms: int
    state: PayState = PayState.NOT_PAID
    provider_number: str | None = None
    captured_minor: int = 0
    paid_at_ms: int | None = None
    refunded_minor: int = 0

    @property
    def key(self) -> str:
        return self.request.number


class Refund(msgspec.Struct, tag="refund", kw_only=True, frozen=True):
    """One refund; it has succeeded from `ready_at_ms` on."""

    request: CreateRefund
    provider_number: str
    ready_at_ms: int

    @property
    def key(self) -> str:
        return self.request.number

    def status(self, now_ms: int) -> RefundStatus:
        """Tell where it stands at a moment."""
        ready = now_ms >= self.ready_at_ms
        return RefundStatus.SUCCEEDED if ready else RefundStatus.PROCESSING


class Callback(msgspec.Struct, tag="callback", kw_only=True, frozen=True):
    """One notification to be delivered until it is acknowledged, or tried often enough."""

    id: str
    url: str
    body: str
    due_at_ms: int
    tries: int = 0
    done: bool = False

    @property
    def key(self) -> str:
        return self.id


Record: TypeAlias = Payment | Refund | Callback
