"""
Refunds that their provider refused and a person paid out instead.

Closing one ends it as `succeeded` with the number on the slip. The refund, the fact for
the ledger and the audit row are one transaction on the order's shard. A provider may yet
say that it paid the same refund: then the shopper has the money twice, and the second
time becomes a fact of its own, an alarm and a letter, never an end that was there before.

Source:
    docs/PAYMENTS.md §4.7 and docs/decisions/0034-refunds-by-hand.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.orders.store import insert_outbox
from app.payments import store
from app.payments.facts import refund_fact
from app.payments.intent import (
    REFUND_MACHINE,
    Refund,
    RefundEvent,
    RefundNumber,
    RefundState,
    attempt_of_refund,
)
from app.payments.stage import PaymentStage
from app.sales.store import Act, note_act
from app.storage.shards import Connection

MARK_BY_HAND: Final = """
UPDATE refunds SET state = $2, by_hand = $3, settled_at = now()
WHERE number = $1 AND state = ANY($4::refund_state[])
RETURNING number"""

# The column is set once, so however often and by whatever way it is told, it is one fact.
MARK_DOUBLED: Final = """
UPDATE refunds SET doubled_at = now()
WHERE number = $1 AND by_hand IS NOT NULL AND doubled_at IS NULL
RETURNING number"""


class CloseRefusal(StrEnum):
    """Why a refund was not closed: codes of the problem catalogue."""

    NOT_FOUND = "not_found"
    REFUND_SETTLED = "refund_settled"
    REFUND_UNDER_WAY = "refund_under_way"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout:
    """How a person knows that the money went out: the number on the slip, and who says so."""

    reference: str
    act: Act


async def close_refund(stage: PaymentStage, number: str, payout: Payout) -> Refund | CloseRefusal:
    """
    End an abnormal refund that a person paid out; the same proof again is one act.

    Raises:
        ShardUnavailable: nothing was written, or all of it was; repeat.
    """
    attempt = attempt_of_refund(number)
    key = None if attempt is None else stage.order_key(attempt)
    if key is None:
        return CloseRefusal.NOT_FOUND
    async with stage.shards.of(key.sale, key.bucket).transaction() as connection:
        refund = await store.lock_refund(connection, number)
        if refund is None:
            return CloseRefusal.NOT_FOUND
        if refund.state is RefundState.SUCCEEDED:
            same = refund.by_hand == payout.reference
            return refund if same else CloseRefusal.REFUND_SETTLED
        if refund.state is not RefundState.ABNORMAL:
            return CloseRefusal.REFUND_UNDER_WAY
        return await _close(connection, refund, payout)


async def _close(connection: Connection, refund: Refund, payout: Payout) -> Refund:
    closed = await connection.fetchval(
        MARK_BY_HAND,
        refund.number,
        REFUND_MACHINE.after(refund.state, RefundEvent.PAID_BY_HAND),
        payout.reference,
        REFUND_MACHINE.sources(RefundEvent.PAID_BY_HAND),
    )
    assert closed is not None, f"locked and abnormal, and yet not closed: {refund.number}"
    await insert_outbox(connection, "refund_paid_by_hand", refund.number, refund_fact(refund))
    detail = {"reference": payout.reference, "amount_minor": refund.amount_minor}
    await note_act(connection, payout.act, "refund paid by hand", refund.number, detail)
    after = await store.lock_refund(connection, refund.number)
    assert after is not None, refund.number
    return after


async def note_doubled(connection: Connection, refund: Refund) -> bool:
    """
    Note that a provider paid a refund which a person had paid out, in the caller's transaction.

    Returns:
        False when nobody had paid it out, or when this is known.
    """
    number: RefundNumber | None = await connection.fetchval(MARK_DOUBLED, refund.number)
    if number is None:
        return False
    await insert_outbox(connection, "refund_doubled", refund.number, refund_fact(refund))
    return True
