"""What operators do about risk: block, unblock, release, reject, each with a reason."""

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from app.kernel.ids import OrderKey
from app.orders.store import lock_order
from app.payments.risk import store
from app.payments.risk.rules import BlockEffect, HoldState, RiskSubject
from app.payments.risk.store import Block
from app.payments.stage import PaymentStage
from app.sales.store import Act, note_act

LIST_MAX = 200  # rows an operator is shown at once


class HoldRefusal(StrEnum):
    """Why a hold was not decided: codes of the problem catalogue."""

    ORDER_NOT_FOUND = "order_not_found"
    NOT_HELD = "payment_not_held"


async def block_subject(
    stage: PaymentStage, kind: RiskSubject, value: str, effect: BlockEffect, act: Act
) -> Block:
    """
    Block who or what starts payments, from the next start on; repeating it changes nothing.

    Raises:
        ShardUnavailable: a shard is away; some may know of it: repeat.
    """
    block = Block(
        kind=kind,
        pseudonym=stage.order_ids.pseudonym(kind, value),
        effect=effect,
        reason=act.reason or "",
        blocked_by=act.actor,
        blocked_at=stage.now(),
    )
    for shard in reversed(stage.shards.all):  # the directory last: its audit row says all of them
        async with shard.transaction() as connection:
            await store.put_block(connection, block)
            if shard is stage.shards.directory:
                detail = {"kind": kind, "effect": effect}
                await note_act(connection, act, "subject blocked", block.pseudonym.hex(), detail)
    return block


async def unblock_subject(
    stage: PaymentStage, kind: RiskSubject, pseudonym: bytes, act: Act
) -> bool:
    """
    Take a block off the list; False when the list does not have it.

    Raises:
        ShardUnavailable: a shard is away; some may still have it: repeat.
    """
    for shard in reversed(stage.shards.all):
        async with shard.transaction() as connection:
            deleted = await store.delete_block(connection, kind, pseudonym)
            if deleted and shard is stage.shards.directory:
                await note_act(
                    connection, act, "subject unblocked", pseudonym.hex(), {"kind": kind}
                )
    return deleted


async def list_blocks(stage: PaymentStage) -> list[Block]:
    """Return the newest blocks, as the directory has them."""
    async with stage.shards.directory.connection() as connection:
        return await store.list_blocks(connection, LIST_MAX)


async def list_holds(stage: PaymentStage) -> list[Mapping[str, Any]]:
    """Return the holds of all shards that nobody has decided, oldest first."""

    async def read(index: int) -> Sequence[Mapping[str, Any]]:
        async with stage.shards.all[index].connection() as connection:
            return await store.waiting_holds(connection, LIST_MAX)

    pages = await asyncio.gather(*map(read, range(len(stage.shards.all))))
    rows = sorted((row for page in pages for row in page), key=lambda row: row["held_at"])
    return rows[:LIST_MAX]


async def read_order_risk(
    stage: PaymentStage, order_id: str
) -> tuple[Mapping[str, Any] | None, Sequence[Mapping[str, Any]]] | None:
    """Return an order's hold and refusals; None for an id that is not ours."""
    known = stage.order_ids.read(order_id)
    if known is None:
        return None
    key = known[0]
    async with stage.shards.of(key.sale, key.bucket).connection() as connection:
        return await store.read_risk(connection, key)


async def decide_hold(
    stage: PaymentStage, order_id: str, state: HoldState, act: Act
) -> HoldRefusal | None:
    """
    Release an order's payment or reject it for good; the same decision again is one.

    A rejected order is not cancelled: its time to pay runs out, as for anybody who
    does not pay.

    Raises:
        ShardUnavailable: repeat.
    """
    known = stage.order_ids.read(order_id)
    if known is None:
        return HoldRefusal.ORDER_NOT_FOUND
    return await _decide(stage, known[0], order_id, state, act)


async def _decide(
    stage: PaymentStage, key: OrderKey, order_id: str, state: HoldState, act: Act
) -> HoldRefusal | None:
    async with stage.shards.of(key.sale, key.bucket).transaction() as connection:
        if await lock_order(connection, key) is None:
            return HoldRefusal.ORDER_NOT_FOUND
        decided = (act.actor, act.reason or "", stage.now())
        if await store.decide_hold(connection, key, state, decided):
            await note_act(connection, act, f"payment {state}", order_id, {})
            return None
        same = await store.read_hold_state(connection, key) is state
        return None if same else HoldRefusal.NOT_HELD
