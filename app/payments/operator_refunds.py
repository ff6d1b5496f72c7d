"""
Refunds that operators ask for, in part or in full, and those that they send again.

The refund, the order's move, the fact for the ledger and the audit row are one
transaction on the order's shard; `payments.refunds` sends it afterwards, with its
number for ever.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.kernel.failpoints import failpoint
from app.orders.order import Order
from app.orders.store import lock_order
from app.payments import store
from app.payments.intent import (
    Refund,
    RefundEvent,
    RefundReason,
    RefundState,
    attempt_of_refund,
)
from app.payments.refund_requests import RefundRefused, RefundWish, request_refund
from app.payments.stage import PaymentStage
from app.sales.store import Act, note_act
from app.storage.shards import Connection


class AskRefusal(StrEnum):
    """Why no refund was written: codes of the problem catalogue."""

    ORDER_NOT_FOUND = "order_not_found"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    NOT_REFUNDABLE = "not_refundable"
    REFUND_EXCEEDS_PAID = "refund_exceeds_paid"


_REFUSALS: Final = {
    RefundRefused.NOT_PAID: AskRefusal.NOT_REFUNDABLE,
    RefundRefused.EXCEEDS_PAID: AskRefusal.REFUND_EXCEEDS_PAID,
    RefundRefused.TOO_MANY: AskRefusal.NOT_REFUNDABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundAsk:
    """What an operator asks for; the reason is told to the provider and to the audit."""

    order_id: str
    idempotency_key: str
    amount_minor: int
    reason: str
    actor: str

    def fingerprint(self) -> bytes:
        """Eight bytes that differ when the same key comes with another content."""
        content = f"{self.amount_minor}\n{self.reason}"
        return hashlib.sha256(content.encode()).digest()[:8]


@dataclass(frozen=True, slots=True)
class Asked:
    """A refund, and whether an earlier request with this key had asked for it."""

    refund: Refund
    replayed: bool


async def ask_refund(stage: PaymentStage, ask: RefundAsk) -> Asked | AskRefusal:
    """
    Write a refund of an order, or return the one this key asked for.

    Raises:
        ShardUnavailable: nothing was written, or all of it was; repeat with the key.
    """
    known = stage.order_ids.read(ask.order_id)
    if known is None:
        return AskRefusal.ORDER_NOT_FOUND
    key = known[0]
    async with stage.shards.of(key.sale, key.bucket).transaction() as connection:
        order = await lock_order(connection, key)
        if order is None:
            return AskRefusal.ORDER_NOT_FOUND
        asked = await _ask(connection, order, ask)
        failpoint("operator_refunds.before_commit")
    failpoint("operator_refunds.after_commit")
    return asked


async def _ask(connection: Connection, order: Order, ask: RefundAsk) -> Asked | AskRefusal:
    """Judge one request under the order's lock, so that two with one key are one."""
    earlier = await store.find_refund_by_key(connection, order.key, ask.idempotency_key)
    if earlier is not None:
        is_same = earlier.fingerprint == ask.fingerprint()
        return Asked(earlier, replayed=True) if is_same else AskRefusal.IDEMPOTENCY_MISMATCH
    wish = RefundWish(
        amount_minor=ask.amount_minor,
        reason=RefundReason.OPERATOR,
        actor=ask.actor,
        note=ask.reason,
        idempotency_key=ask.idempotency_key,
        fingerprint=ask.fingerprint(),
    )
    refund = await request_refund(connection, order, wish)
    if isinstance(refund, RefundRefused):
        return _REFUSALS[refund]
    detail = {"refund_id": refund.number, "amount_minor": refund.amount_minor}
    act = Act(actor=ask.actor, reason=ask.reason)
    await note_act(connection, act, "refund asked", ask.order_id, detail)
    return Asked(refund, replayed=False)


async def retry_refund(stage: PaymentStage, number: str, act: Act) -> Refund | None:
    """
    Let a refund that its provider refused be sent again, with the same number.

    One that is on its way, or has arrived, is left alone: asking twice is one act.

    Returns:
        The refund as it is now; None if there is none of this number.

    Raises:
        ShardUnavailable: repeat.
    """
    attempt = attempt_of_refund(number)
    key = None if attempt is None else stage.order_key(attempt)
    if key is None:
        return None
    async with stage.shards.of(key.sale, key.bucket).transaction() as connection:
        refund = await store.lock_refund(connection, number)
        if refund is None or refund.state is not RefundState.ABNORMAL:
            return refund
        moved = await store.mark_refund(connection, refund.number, RefundEvent.RETRY_ASKED)
        assert moved, f"locked and abnormal, and yet not sent again: {number}"
        await note_act(connection, act, "refund sent again", number, {})
        return await store.lock_refund(connection, number)
