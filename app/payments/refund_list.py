"""
What operators see of refunds: those of all shards, newest first, by their state.

`abnormal` waits for a person; one that stays `unknown` is asked about by itself, and
somebody should know of it.
"""

import asyncio
from datetime import datetime
from typing import Final

import msgspec

from app.payments.intent import Refund, RefundState, order_of_attempt
from app.payments.store import REFUND_COLUMNS, REFUND_OF_ATTEMPT, refund_from_row
from app.storage.shards import Shard, Shards

Before = tuple[datetime, str]
"""When the last refund of a page was asked for, and its number."""

_NEWEST: Final = f"""
SELECT {REFUND_COLUMNS} {REFUND_OF_ATTEMPT}
WHERE ($1::timestamptz IS NULL OR (r.requested_at, r.number) < ($1, $2::text)) {{}}
ORDER BY r.requested_at DESC, r.number DESC LIMIT $3"""
SELECT_REFUNDS_OF_ALL: Final = _NEWEST.format("")
SELECT_REFUNDS_OF_STATE: Final = _NEWEST.format("AND r.state = $4::refund_state")


class AdminRefundView(msgspec.Struct, frozen=True, kw_only=True):
    """One refund as operators see it; `by_hand` names the proof of one paid out by a person."""

    refund_id: str
    payment_id: str
    order_id: str
    provider: str
    account: str
    status: str
    amount_minor: int
    currency: str
    reason: str
    note: str | None
    tries: int
    requested_at: str
    by_hand: str | None
    doubled: bool


async def list_refunds(
    shards: Shards, before: Before | None, state: RefundState | None, refunds_max: int
) -> list[Refund]:
    """
    Return refunds of all shards, newest first.

    Raises:
        ShardUnavailable: a shard did not answer; a list without its refunds would lie.
    """
    parts = await asyncio.gather(
        *(_refunds_of_shard(shard, before, state, refunds_max) for shard in shards.all)
    )
    joined = [refund for part in parts for refund in part]
    joined.sort(key=lambda refund: (refund.requested_at, refund.number), reverse=True)
    return joined[:refunds_max]


async def _refunds_of_shard(
    shard: Shard, before: Before | None, state: RefundState | None, refunds_max: int
) -> list[Refund]:
    statement = SELECT_REFUNDS_OF_ALL if state is None else SELECT_REFUNDS_OF_STATE
    wish = () if state is None else (state,)
    asked_at, number = before or (None, None)
    async with shard.connection() as connection:
        rows = await connection.fetch(statement, asked_at, number, refunds_max, *wish)
    return [refund_from_row(row) for row in rows]


def view_for_operators(refund: Refund) -> AdminRefundView:
    order_id = order_of_attempt(refund.attempt.number)
    assert order_id is not None, refund.attempt.number
    return AdminRefundView(
        refund_id=refund.number,
        payment_id=refund.attempt.number,
        order_id=order_id,
        provider=refund.provider,
        account=refund.account,
        status=refund.state,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
        note=refund.note,
        tries=refund.tries,
        requested_at=refund.requested_at.isoformat().replace("+00:00", "Z"),
        by_hand=refund.by_hand,
        doubled=refund.doubled,
    )
