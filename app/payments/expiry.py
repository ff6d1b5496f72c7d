"""
Learn how an attempt ended: close it at the provider, then ask.

The closer ends an order only when every attempt is known to have ended; only
the provider's signed answer counts. Unknown is never failure: the order stays
`closing` and its units stay held.
"""

from enum import StrEnum

import structlog

from app.kernel.ids import OrderKey
from app.payments import store
from app.payments.capture import EventOutcome, apply_payment
from app.payments.intent import Attempt
from app.payments.provider import (
    CAPTURED_STATES,
    Event,
    PaySnapshot,
    PayState,
    Provider,
    Result,
    Verified,
)
from app.payments.stage import PaymentStage

_log = structlog.get_logger(__name__)


class AttemptEnd(StrEnum):
    """What is known about the end of an attempt, or of all attempts of an order."""

    CLOSED = "closed"  # nobody can pay any more, and nobody did
    PAID = "paid"
    UNKNOWN = "unknown"  # ask again later


async def settle_attempts(stage: PaymentStage, key: OrderKey) -> AttemptEnd:
    """
    Close and ask about whatever attempt of an order is alive.

    Safe to repeat. `orders.closer` calls it for an order that is `closing`, so no
    new attempt can appear meanwhile.

    Raises:
        ShardUnavailable: ask again later.
    """
    shard = stage.shards.of(key.sale, key.bucket)
    async with shard.connection() as connection:
        attempts = await store.attempts_of_order(connection, key)
    ends = [await close_attempt(stage, attempt) for attempt in attempts if attempt.is_live]
    if AttemptEnd.PAID in ends or any(attempt.is_captured for attempt in attempts):
        return AttemptEnd.PAID
    return AttemptEnd.UNKNOWN if AttemptEnd.UNKNOWN in ends else AttemptEnd.CLOSED


async def close_attempt(stage: PaymentStage, attempt: Attempt) -> AttemptEnd:
    """Tell the provider that the shopper may no longer pay, then ask what is so."""
    provider = stage.providers.of(attempt.provider, attempt.account)
    # Its answer is not used: only the question after it says whether money came.
    await provider.close(attempt.reference())
    return await ask_about(stage, attempt)


async def ask_about(stage: PaymentStage, attempt: Attempt) -> AttemptEnd:
    """Ask the provider about one attempt and apply what it says."""
    provider = stage.providers.of(attempt.provider, attempt.account)
    told = await provider.query(attempt.reference())
    snapshot = told.value
    if snapshot is None:
        stage.tally.count_payment(provider.code, "query_unknown")
        return AttemptEnd.UNKNOWN
    if snapshot.state is PayState.NOT_FOUND:
        return await _end_unheard_of(stage, attempt)
    if snapshot.state in CAPTURED_STATES or snapshot.state is PayState.CLOSED:
        outcome = await apply_payment(
            stage, provider, _as_message(stage, provider, told, snapshot), snapshot
        )
        return await _end_of(stage, attempt, outcome)
    return AttemptEnd.UNKNOWN


async def _end_unheard_of(stage: PaymentStage, attempt: Attempt) -> AttemptEnd:
    """
    Judge a signed "no such payment".

    Until the attempt's expiry it only means "not yet": our create call may still
    be on its way, and Alipay does not know a code before it is scanned.
    """
    if stage.now() < attempt.expires_at:
        return AttemptEnd.UNKNOWN
    shard = stage.shards.of(attempt.order_key.sale, attempt.order_key.bucket)
    async with shard.connection() as connection:
        closed = await store.mark_closed(connection, attempt.number)
    if closed:
        stage.tally.count_payment(attempt.provider, EventOutcome.CLOSED)
        _log.info("payment_closed", payment_id=attempt.number, provider=attempt.provider)
        return AttemptEnd.CLOSED
    return await _end_of(stage, attempt, EventOutcome.NO_EFFECT)


async def _end_of(stage: PaymentStage, attempt: Attempt, outcome: EventOutcome) -> AttemptEnd:
    """Say what the attempt came to, whoever applied it first."""
    if outcome is EventOutcome.PAID:
        return AttemptEnd.PAID
    if outcome is EventOutcome.CLOSED:
        return AttemptEnd.CLOSED
    shard = stage.shards.of(attempt.order_key.sale, attempt.order_key.bucket)
    now = await store.read_attempt(shard, attempt.number)
    if now.is_captured:
        return AttemptEnd.PAID
    return AttemptEnd.UNKNOWN if now.is_live else AttemptEnd.CLOSED


def _as_message(
    stage: PaymentStage, provider: Provider, told: Result[PaySnapshot], snapshot: PaySnapshot
) -> Verified:
    """Keep a signed answer like a callback: one record per attempt and state."""
    event = Event(
        provider=provider.code,
        notification_id=f"query:{snapshot.number}:{snapshot.state}",
        event_at=stage.now(),
        about=snapshot,
    )
    return Verified(event, {}, told.raw)
