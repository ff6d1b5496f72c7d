"""
Learn how an attempt ended: close it at the provider, then ask.

The closer ends an order only when every attempt is known to have ended; only
the provider's signed answer counts. Unknown is never failure: the order stays
`closing` and its units stay held.
"""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Sequence
from functools import partial

import msgspec
import structlog

from app.kernel.ids import OrderKey
from app.orders.closer import AttemptsSettled
from app.payments import store
from app.payments.calls import run_bounded
from app.payments.capture import EventOutcome, apply_payment
from app.payments.intent import Attempt
from app.payments.provider import (
    CAPTURED_STATES,
    Event,
    Outcome,
    PaySnapshot,
    PayState,
    Provider,
    Result,
    Verified,
)
from app.payments.stage import PaymentStage

_log = structlog.get_logger(__name__)


async def unattempted(stage: PaymentStage, keys: Sequence[OrderKey]) -> set[OrderKey]:
    """
    Return the orders that no live or captured attempt stands for: nothing can pay them.

    Args:
        stage: the collaborators.
        keys: 0..n orders that are closing, all on one shard.

    Raises:
        ShardUnavailable: ask again later.
    """
    if not keys:
        return set()
    shard = stage.shards.of(keys[0].sale, keys[0].bucket)
    standing = await store.standing_attempts(shard, keys)
    return set(keys) - {attempt.order_key for attempt in standing}


async def settle_attempts(
    stage: PaymentStage, keys: Sequence[OrderKey]
) -> dict[OrderKey, AttemptsSettled]:
    """
    Close and ask about whatever attempts of these orders are alive.

    Safe to repeat. The closer calls it for orders that are `closing`, so no new
    attempt can appear meanwhile. A provider that does not answer costs a bounded
    time: orders it was not asked about by then are UNKNOWN, and another order
    comes first the next time.

    Args:
        stage: the collaborators.
        keys: 0..n, all on one shard.

    Raises:
        ShardUnavailable: ask again later.
    """
    ends = dict.fromkeys(keys, AttemptsSettled.CLOSED)
    if not keys:
        return ends
    shard = stage.shards.of(keys[0].sale, keys[0].bucket)
    attempts = await store.standing_attempts(shard, keys)
    live = [attempt for attempt in attempts if attempt.is_live]
    ends.update((attempt.order_key, AttemptsSettled.UNKNOWN) for attempt in live)

    async def settle(attempt: Attempt) -> None:
        ends[attempt.order_key] = await close_attempt(stage, attempt)

    random.shuffle(live)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(stage.settings.settle_ms_max / 1000):
            calls = [(attempt.route, partial(settle, attempt)) for attempt in live]
            await run_bounded(calls, stage.settings.calls_max)
    # A capture counts whatever became of the order's other attempts.
    captured = (attempt.order_key for attempt in attempts if attempt.is_captured)
    ends.update(dict.fromkeys(captured, AttemptsSettled.PAID))
    return ends


async def close_attempt(stage: PaymentStage, attempt: Attempt) -> AttemptsSettled:
    """Tell the provider that the shopper may no longer pay, then ask what is so."""
    provider = stage.providers.of(attempt.provider, attempt.account)
    closed = await provider.close(attempt.reference())
    if closed.outcome is Outcome.NOT_SENT:
        return AttemptsSettled.UNKNOWN
    # Whatever it answered: only the question after it says whether money came.
    return await ask_about(stage, attempt)


async def ask_about(stage: PaymentStage, attempt: Attempt) -> AttemptsSettled:
    """Ask the provider about one attempt and apply what it says."""
    provider = stage.providers.of(attempt.provider, attempt.account)
    told = await provider.query(attempt.reference())
    snapshot = told.value
    if snapshot is None:
        stage.tally.count_payment(provider.code, "query_unknown")
        return AttemptsSettled.UNKNOWN
    if snapshot.state is PayState.NOT_FOUND:
        return await _end_unheard_of(stage, attempt)
    if snapshot.state in CAPTURED_STATES or snapshot.state is PayState.CLOSED:
        outcome = await apply_payment(
            stage, provider, _as_message(stage, provider, told, snapshot), snapshot
        )
        return await _end_of(stage, attempt, outcome)
    if snapshot.state is PayState.UNKNOWN:
        stage.tally.count_payment(provider.code, EventOutcome.UNKNOWN_STATE)
        _log.error("payment_state_unknown", payment_id=attempt.number, provider=provider.code)
    return AttemptsSettled.UNKNOWN


async def _end_unheard_of(stage: PaymentStage, attempt: Attempt) -> AttemptsSettled:
    """
    Judge a signed "no such payment".

    Until the attempt's expiry it only means "not yet": our create call may still
    be on its way, and Alipay does not know a code before it is scanned.
    """
    if stage.now() < attempt.expires_at:
        return AttemptsSettled.UNKNOWN
    shard = stage.shards.of(attempt.order_key.sale, attempt.order_key.bucket)
    async with shard.connection() as connection:
        closed = await store.mark_closed(connection, attempt.number)
    if closed:
        stage.tally.count_payment(attempt.provider, EventOutcome.CLOSED)
        _log.info("payment_never_heard_of", payment_id=attempt.number, provider=attempt.provider)
        return AttemptsSettled.CLOSED
    return await _end_of(stage, attempt, EventOutcome.NO_EFFECT)


async def _end_of(stage: PaymentStage, attempt: Attempt, outcome: EventOutcome) -> AttemptsSettled:
    """Say what the attempt came to, whoever applied it first."""
    if outcome is EventOutcome.PAID:
        return AttemptsSettled.PAID
    if outcome is EventOutcome.CLOSED:
        return AttemptsSettled.CLOSED
    shard = stage.shards.of(attempt.order_key.sale, attempt.order_key.bucket)
    now = await store.read_attempt(shard, attempt.number)
    if now.is_captured:
        return AttemptsSettled.PAID
    return AttemptsSettled.UNKNOWN if now.is_live else AttemptsSettled.CLOSED


def _as_message(
    stage: PaymentStage, provider: Provider, told: Result[PaySnapshot], snapshot: PaySnapshot
) -> Verified:
    """
    Keep a signed answer like a callback: one record per attempt, state and what was compared.

    The same answer, held against the same account, is a repeat. One that contradicted us is
    judged anew once it says something else, or once a mistake in the account was mended.
    """
    compared = msgspec.json.encode((provider.account, snapshot))
    digest = hashlib.blake2b(compared, digest_size=8).hexdigest()
    event = Event(
        provider=provider.code,
        notification_id=f"query:{snapshot.number}:{snapshot.state}:{digest}",
        event_at=stage.now(),
        about=snapshot,
    )
    return Verified(event, {}, told.raw)
