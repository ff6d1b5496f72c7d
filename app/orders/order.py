"""An order and the table of its life; pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.kernel.ids import OrderKey
from app.kernel.machine import Machine


class OrderState(StrEnum):
    """The states of an order's row; `queued` and `rejected` are answers about a ticket."""

    PENDING = "pending"
    CLOSING = "closing"
    PAID = "paid"
    SHIPPED = "shipped"
    COMPLETED = "completed"
    CLOSED = "closed"
    REFUNDED = "refunded"


class OrderReason(StrEnum):
    """Why an order is closing or closed."""

    EXPIRED = "expired"
    CANCELLED_BY_SHOPPER = "cancelled_by_shopper"
    CANCELLED_BY_MERCHANT = "cancelled_by_merchant"
    PAYMENT_FAILED = "payment_failed"
    GROUP_FAILED = "group_failed"
    REVIEW_REJECTED = "review_rejected"


class OrderEvent(StrEnum):
    """What can happen to an order once its row exists."""

    PAYMENT_CAPTURED = "payment_captured"
    CLOSE_ASKED = "close_asked"
    PROVIDER_CLOSED = "provider_closed"
    SHIPPED = "shipped"
    RECEIVED = "received"
    REFUNDED_IN_FULL = "refunded_in_full"
    DELIVERY_CHANGED = "delivery_changed"
    REVIEWED = "reviewed"
    REFUND_REQUESTED = "refund_requested"
    AFTER_SALE_MOVED = "after_sale_moved"
    GROUP_FORMED = "group_formed"
    GROUP_MERGED = "group_merged"


def _staying(
    event: OrderEvent, *states: OrderState
) -> dict[tuple[OrderState, OrderEvent], OrderState]:
    """Allow an event that is told in the timeline and leaves the order where it is."""
    return {(state, event): state for state in states}


ORDER_MACHINE: Final = Machine(
    name="order",
    start=OrderState.PENDING,
    moves={
        (OrderState.PENDING, OrderEvent.PAYMENT_CAPTURED): OrderState.PAID,
        (OrderState.PENDING, OrderEvent.CLOSE_ASKED): OrderState.CLOSING,
        (OrderState.CLOSING, OrderEvent.PAYMENT_CAPTURED): OrderState.PAID,
        (OrderState.CLOSING, OrderEvent.PROVIDER_CLOSED): OrderState.CLOSED,
        (OrderState.PAID, OrderEvent.SHIPPED): OrderState.SHIPPED,
        (OrderState.PAID, OrderEvent.REFUNDED_IN_FULL): OrderState.REFUNDED,
        (OrderState.SHIPPED, OrderEvent.RECEIVED): OrderState.COMPLETED,
        # A closing order may yet turn out to be paid, and then be shipped.
        **_staying(
            OrderEvent.DELIVERY_CHANGED, OrderState.PENDING, OrderState.CLOSING, OrderState.PAID
        ),
        **_staying(OrderEvent.REVIEWED, OrderState.PAID),
        **_staying(
            OrderEvent.REFUND_REQUESTED, OrderState.PAID, OrderState.SHIPPED, OrderState.COMPLETED
        ),
        **_staying(OrderEvent.AFTER_SALE_MOVED, OrderState.SHIPPED, OrderState.COMPLETED),
        **_staying(OrderEvent.GROUP_FORMED, OrderState.PAID, OrderState.SHIPPED),
        **_staying(
            OrderEvent.GROUP_MERGED, OrderState.PENDING, OrderState.CLOSING, OrderState.PAID
        ),
    },
)

PLACED_EVENT: Final = "placed"
"""The first event of every order; it has no source state and so stands outside the table."""


class TicketState(StrEnum):
    """What is known of an accepted order that has no row."""

    QUEUED = "queued"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One row of `orders`; amounts in minor units of `currency`."""

    key: OrderKey
    shopper: str
    sku: str
    quantity: int
    price_minor: int
    total_minor: int
    refunded_minor: int
    currency: str
    merchant: str
    state: OrderState
    reason: OrderReason | None
    placed_at: datetime
    pay_by: datetime
    paid_at: datetime | None
    closed_at: datetime | None
    key_hash: bytes
    fingerprint: bytes
    reference: str | None
    group_id: str | None = None  # the name of its group within the bucket; group sales only


@dataclass(frozen=True, slots=True)
class Ticket:
    """An accepted order without a row: still in the stream, or finally rejected."""

    key: OrderKey
    state: TicketState
    reason: str | None = None
