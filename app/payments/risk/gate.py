"""
The gate before an attempt: counts the start, asks the rules, notes what they say.

Orders of one shopper lie on many shards, so starts are counted where a subject's
pseudonym falls, in transactions of their own, before the order is locked; a limit
counted in the attempt's transaction would be one limit per shard. Blocks and holds
are read, and the decision written, in the attempt's transaction.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta

from app.orders.order import Order
from app.orders.sealing import OrderIds
from app.payments.risk import store
from app.payments.risk.rules import (
    Decision,
    RiskFacts,
    RiskSubject,
    Verdict,
    decide,
)
from app.payments.settings import RiskSettings
from app.payments.stage import PaymentStage
from app.storage.shards import Connection

Subjects = Mapping[RiskSubject, bytes]


def pseudonyms(
    order_ids: OrderIds, shopper: str, device: str | None, address: str | None
) -> Subjects:
    """Name who starts a payment as rows do; what was not told is not there."""
    told = {
        RiskSubject.SHOPPER: shopper,
        RiskSubject.DEVICE: device,
        RiskSubject.ADDRESS: address,
    }
    return {
        kind: order_ids.pseudonym(kind, value) for kind, value in told.items() if value is not None
    }


async def count_starts(
    stage: PaymentStage, subjects: Subjects, order_id: str, idempotency_key: str
) -> frozenset[RiskSubject]:
    """
    Count one start for each subject that has a limit.

    One that another subject's limit refuses may have been counted for the first.

    Returns:
        Those for whom it is one too many; a repeated request is never that.

    Raises:
        ShardUnavailable: a limit is set and cannot be kept; repeat.
    """
    settings = stage.settings.risk
    told = f"{order_id}\n{idempotency_key}".encode()
    start = hashlib.blake2b(told, digest_size=16).digest()
    now = stage.now()
    since = now - timedelta(seconds=settings.window_seconds)
    over: set[RiskSubject] = set()
    for kind, pseudonym in subjects.items():
        starts_max = _limit(settings, kind)
        if starts_max == 0:
            continue
        shard = stage.shards.all[int.from_bytes(pseudonym[:4]) % len(stage.shards.all)]
        async with shard.transaction() as connection:
            counted = await store.count_start(
                connection, (kind, pseudonym), start, starts_max, (since, now)
            )
        if not counted:
            over.add(kind)
    return frozenset(over)


def _limit(settings: RiskSettings, kind: RiskSubject) -> int:
    match kind:
        case RiskSubject.SHOPPER:
            return settings.per_shopper_max
        case RiskSubject.DEVICE:
            return settings.per_device_max
        case RiskSubject.ADDRESS:
            return settings.per_address_max


async def judge_start(
    stage: PaymentStage,
    connection: Connection,
    order: Order,
    subjects: Subjects,
    over: frozenset[RiskSubject],
) -> Decision:
    """Decide whether an order's payment may be opened, and note a hold or a refusal."""
    facts = RiskFacts(
        amount_minor=order.total_minor,
        over=over,
        blocks=await store.read_block_effects(connection, subjects),
        hold=await store.read_hold_state(connection, order.key),
    )
    decision = decide(facts, stage.settings.risk)
    if decision.verdict is Verdict.HOLD:
        await store.note_hold(connection, order.key, decision.rule, stage.now())
    elif decision.verdict is Verdict.REFUSE:
        await store.note_refusal(connection, order.key, decision.rule, stage.now())
    return decision
