"""
Give the members of failed groups their money back, each once.

A failed group leaves an outbox row for each member who has paid, and so does a payment that
finds its group over. The refund, the end of the order and the row's end are one transaction.
"""

from functools import partial
from typing import Final

from app.kernel.failpoints import failpoint
from app.orders.order import OrderReason
from app.orders.store import lock_order
from app.payments import store
from app.payments.calls import count_over
from app.payments.intent import RefundReason
from app.payments.refund_requests import RefundWish, request_refund
from app.payments.stage import PaymentStage
from app.storage.shards import Shard

_WISH: Final = RefundWish(
    amount_minor=None,
    reason=RefundReason.GROUP_FAILED,
    order_reason=OrderReason.GROUP_FAILED,
    actor="groups",
)


async def refund_members_once(stage: PaymentStage) -> int:
    """
    Ask for the refund of every member who waits for one, on every shard; one bounded pass.

    Returns:
        How many were asked for.

    Raises:
        ShardUnavailable: a shard did not answer; call again.
    """
    rows_max = stage.settings.refund_batch_max
    return await count_over(stage.shards.all, partial(_refund_on_shard, rows_max))


async def _refund_on_shard(rows_max: int, shard: Shard) -> int:
    rows = await store.waiting_group_refunds(shard, rows_max)
    for row_id in rows:
        await refund_member(shard, row_id)
    return len(rows)


async def refund_member(shard: Shard, row_id: int) -> None:
    """
    Write one member's refund, unless all was given back already.

    An order that a merchant has refunded meanwhile has nothing left to give.
    """
    async with shard.transaction() as connection:
        key = await store.take_group_refund(connection, row_id)
        if key is None:
            return
        failpoint("group_refunds.after_take")
        order = await lock_order(connection, key)
        assert order is not None, key
        await request_refund(connection, order, _WISH)
        failpoint("group_refunds.before_commit")
    failpoint("group_refunds.after_commit")
