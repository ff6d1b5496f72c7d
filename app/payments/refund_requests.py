"""
Ask for money back that an order has taken: the one way from a paid order to a refund.

In one transaction on the order's shard: the refund, what the order and its attempt
count as given back, the fact for the ledger, the order's event. Sending is
`payments.refunds`' part. A refund that makes the whole of an order that was not
shipped ends it: `paid` becomes `refunded` and its units go back.
"""

import enum
from dataclasses import dataclass

from app.kernel.failpoints import failpoint
from app.orders.life_store import add_refunded, mark_refunded, move_order
from app.orders.order import Order, OrderEvent, OrderReason, OrderState
from app.orders.store import insert_outbox
from app.payments import store
from app.payments.facts import refund_fact
from app.payments.intent import (
    ORDINAL_MAX,
    Attempt,
    AttemptState,
    Refund,
    RefundReason,
    refund_number,
)
from app.storage.shards import Connection


class RefundRefused(enum.Enum):
    """Why no refund was written."""

    NOT_PAID = enum.auto()  # no payment stands behind the order, or it was given back whole
    EXCEEDS_PAID = enum.auto()  # more than is left of it
    TOO_MANY = enum.auto()  # its numbers are used up


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundWish:
    """
    What somebody wants back.

    Attributes:
        amount_minor: of the order's currency; None for all that is left.
        reason: names the refund.
        order_reason: told by the order if this ends it.
        actor: who asks.
        note: what the provider is told, instead of the reason's name; 1..80 characters.
        idempotency_key: under which it was asked, and `fingerprint` of what.
    """

    amount_minor: int | None
    reason: RefundReason
    order_reason: OrderReason | None = None
    actor: str
    note: str | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = None


async def request_refund(
    connection: Connection, order: Order, wish: RefundWish
) -> Refund | RefundRefused:
    """
    Write a refund of a paid order, in the caller's transaction.

    Args:
        connection: in a transaction that holds the order FOR UPDATE.
        order: as it was read with that lock.
        wish: an amount of at least 1.

    Returns:
        The refund, or why there is none; nothing is written then.
    """
    attempt = await _paid_attempt(connection, order)
    left = order.total_minor - order.refunded_minor
    if attempt is None or left == 0:
        return RefundRefused.NOT_PAID
    amount_minor = left if wish.amount_minor is None else wish.amount_minor
    assert amount_minor > 0
    if amount_minor > left:
        return RefundRefused.EXCEEDS_PAID
    refund = await _insert(connection, order, attempt, amount_minor, wish)
    if refund is None:
        return RefundRefused.TOO_MANY
    await insert_outbox(connection, "refund_requested", refund.number, refund_fact(refund))
    failpoint("refund_request.after_insert")
    is_whole = await add_refunded(connection, order.key, amount_minor)
    detail = {"refund_id": refund.number, "amount_minor": amount_minor, "reason": wish.reason}
    if is_whole and order.state is OrderState.PAID:
        ended = await mark_refunded(
            connection, order.key, wish.order_reason, actor=wish.actor, detail=detail
        )
        assert ended, f"locked and paid, and yet not refunded: {order.key}"
    else:
        told = await move_order(
            connection, order.key, OrderEvent.REFUND_REQUESTED, actor=wish.actor, detail=detail
        )
        assert told, f"a payment stands behind {order.key}, and yet it is {order.state}"
    return refund


async def _paid_attempt(connection: Connection, order: Order) -> Attempt | None:
    """Lock the attempt that paid the order; an order that was closed has none."""
    attempts = await store.attempts_of_order(connection, order.key)
    paid = [one for one in attempts if one.state is AttemptState.PAID]
    return await store.lock_attempt(connection, paid[0].number) if paid else None


async def _insert(
    connection: Connection,
    order: Order,
    attempt: Attempt,
    amount_minor: int,
    wish: RefundWish,
) -> Refund | None:
    """
    Write the row; its number counts the earlier ones of its reason, under the order's lock.

    Returns:
        None when there is no number left.
    """
    earlier = await store.refunds_of_order(connection, order.key)
    ordinal = 1 + sum(one.reason is wish.reason for one in earlier)
    if ordinal > ORDINAL_MAX:
        return None
    return await store.insert_refund(
        connection,
        store.NewRefund(
            number=refund_number(attempt.number, wish.reason, ordinal),
            attempt_number=attempt.number,
            order_key=order.key,
            reason=wish.reason,
            late=False,
            amount_minor=amount_minor,
            currency=order.currency,
            idempotency_key=wish.idempotency_key,
            fingerprint=wish.fingerprint,
            note=wish.note,
        ),
    )
