"""How an order and a ticket look from outside."""

from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from app.kernel.clock import instant
from app.orders.order import Order, Ticket
from app.orders.selling import Accepted
from app.sales.sale import JOIN_ENDS_BEFORE_SECONDS, Sale


class TicketView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What a click is answered with.

    `pay_by` of a ticket (status queued) is a lower bound; the row's is final.
    """

    order_id: str
    status: str
    sale: str
    quantity: int
    total_minor: int
    currency: str
    placed_at: datetime
    pay_by: datetime
    reference: str | None = None
    group: str | None = None


class GoodsView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an order."""

    sku: str
    title: str
    quantity: int
    price_minor: int


class MaskedDeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where an order goes, masked: enough to recognise one's own details by.

    Either all three, or `unreadable` alone: they are there, and this process was not
    given the key that opens them.
    """

    receiver: str | UnsetType = UNSET
    mobile: str | UnsetType = UNSET
    address: str | UnsetType = UNSET
    unreadable: Literal[True] | UnsetType = UNSET


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """
    An order as its shopper sees it.

    While it is `queued`, and when it was `rejected`, there is no row: everything
    that only a row knows is null.
    """

    order_id: str
    status: str
    sale: str
    reason: str | None = None
    quantity: int | None = None
    total_minor: int | None = None
    refunded_minor: int | None = None
    currency: str | None = None
    placed_at: datetime | None = None
    pay_by: datetime | None = None
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    reference: str | None = None
    goods: list[GoodsView] = []
    delivery: MaskedDeliveryView | None = None
    group: str | None = None
    payments: list[Any] = []
    refunds: list[Any] = []


class OrderList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of orders, newest first; `next` is null at the end."""

    items: list[OrderView]
    next: str | None


def view_ticket(  # noqa: PLR0913, PLR0917  what a ticket tells, each once
    order_id: str,
    sale: Sale,
    quantity: int,
    reference: str,
    accepted: Accepted,
    group: str | None = None,
) -> TicketView:
    """Describe an accepted order that is on its way to its row."""
    placed_at = instant(accepted.placed_at_ms)
    return TicketView(
        order_id=order_id,
        status="queued",
        sale=sale.id,
        quantity=quantity,
        total_minor=sale.price_minor * quantity,
        currency=sale.currency,
        placed_at=placed_at,
        pay_by=placed_at + timedelta(seconds=_pay_within(sale)),
        reference=reference or None,
        group=group,
    )


def _pay_within(sale: Sale) -> int:
    """Seconds to pay in at least: a member of a group has until its end, joined ever so late."""
    if sale.group is None:
        return sale.pay_within_seconds
    return min(sale.pay_within_seconds, JOIN_ENDS_BEFORE_SECONDS)


def view_confirmed(
    order_id: str, sale_id: str, order: Order, group: str | None = None
) -> TicketView:
    """Describe an order from its row, as briefly as a ticket."""
    return TicketView(
        order_id=order_id,
        status=order.state,
        sale=sale_id,
        quantity=order.quantity,
        total_minor=order.total_minor,
        currency=order.currency,
        placed_at=order.placed_at,
        pay_by=order.pay_by,
        reference=order.reference,
        group=group,
    )


def view_order(  # noqa: PLR0913, PLR0917  all there is to tell, each once
    order_id: str,
    sale: Sale,
    order: Order,
    payments: list[Any] | None = None,
    refunds: list[Any] | None = None,
    group: str | None = None,
) -> OrderView:
    """Describe an order from its row, with all there is to tell."""
    goods = GoodsView(
        sku=order.sku, title=sale.title, quantity=order.quantity, price_minor=order.price_minor
    )
    return OrderView(
        order_id=order_id,
        status=order.state,
        sale=sale.id,
        reason=order.reason,
        quantity=order.quantity,
        total_minor=order.total_minor,
        refunded_minor=order.refunded_minor,
        currency=order.currency,
        placed_at=order.placed_at,
        pay_by=order.pay_by,
        paid_at=order.paid_at,
        closed_at=order.closed_at,
        reference=order.reference,
        goods=[goods],
        group=group,
        payments=payments or [],
        refunds=refunds or [],
    )


def view_ticket_state(order_id: str, sale_id: str, ticket: Ticket) -> OrderView:
    """Describe an accepted order that has no row (yet, or never)."""
    return OrderView(order_id=order_id, status=ticket.state, sale=sale_id, reason=ticket.reason)
