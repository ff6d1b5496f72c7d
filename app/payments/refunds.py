"""
Send refunds until the provider says that the money went back.

A refund is repeated with its own number for ever: a new number could pay twice.
Its row says `sent` before the provider is called, so a worker that dies in
between leaves a refund that is asked about, not one that is forgotten.
"""

from datetime import timedelta
from functools import partial

import structlog

from app.kernel.failpoints import failpoint
from app.orders.store import insert_outbox
from app.payments import store
from app.payments.calls import count_over, run_bounded
from app.payments.capture import ALARMING, EventOutcome, find_repeat
from app.payments.facts import refund_fact
from app.payments.intent import (
    Check,
    Refund,
    RefundEvent,
    RefundState,
    attempt_of_refund,
    check_refund,
)
from app.payments.provider import (
    Event,
    Outcome,
    Provider,
    RefundSnapshot,
    RefundStatus,
    Result,
    Verified,
)
from app.payments.refunds_by_hand import note_doubled
from app.payments.stage import PaymentStage
from app.storage.shards import Connection, Shard

_log = structlog.get_logger(__name__)

_EVENT_OF_STATUS = {
    RefundStatus.SUCCEEDED: RefundEvent.PROVIDER_SUCCEEDED,
    RefundStatus.ABNORMAL: RefundEvent.PROVIDER_REFUSED,
    RefundStatus.CLOSED: RefundEvent.PROVIDER_REFUSED,
}


async def send_refunds_once(stage: PaymentStage) -> int:
    """
    Work on every refund that is due, on every shard; one bounded pass.

    Returns:
        How many refunds were worked on.

    Raises:
        ShardUnavailable: a shard did not answer; what was taken is due again later.
    """
    return await count_over(stage.shards.all, partial(_send_on_shard, stage))


async def apply_refund(
    stage: PaymentStage, provider: Provider, verified: Verified, snapshot: RefundSnapshot
) -> EventOutcome:
    """
    Apply what a provider says of one refund; see capture.apply_payment.

    Raises:
        ShardUnavailable: nothing was written, or all of it was; repeat.
    """
    attempt_number = attempt_of_refund(snapshot.number)
    key = None if attempt_number is None else stage.order_key(attempt_number)
    outcome, repeated = EventOutcome.UNKNOWN_NUMBER, False
    if key is not None:
        async with stage.shards.of(key.sale, key.bucket).transaction() as connection:
            refund = await store.lock_refund(connection, snapshot.number)
            if refund is not None:
                known = await find_repeat(connection, provider, verified, refund.attempt.number)
                repeated = known is not None
                outcome = known or await _apply(stage, provider, verified, refund, connection)
            failpoint("refunds.before_commit")
        failpoint("refunds.after_commit")
    if not repeated:
        _tell(stage, provider, snapshot.number, outcome)
    return outcome


async def _apply(
    stage: PaymentStage,
    provider: Provider,
    verified: Verified,
    refund: Refund,
    connection: Connection,
) -> EventOutcome:
    snapshot = verified.event.about
    assert isinstance(snapshot, RefundSnapshot)
    own = stage.providers.of(refund.provider, refund.account)
    check = check_refund(refund, own.account, provider.code, snapshot)
    if check is Check.ACCEPTED:
        outcome = await _take_effect(connection, refund, snapshot)
    else:
        outcome = EventOutcome(check)
    account = provider.account.name
    await store.insert_event(connection, account, refund.attempt.number, outcome, verified)
    return outcome


async def _take_effect(
    connection: Connection, refund: Refund, snapshot: RefundSnapshot
) -> EventOutcome:
    if snapshot.status is RefundStatus.UNKNOWN:
        return EventOutcome.UNKNOWN_STATE
    event = _EVENT_OF_STATUS.get(snapshot.status)
    if event is None:
        return EventOutcome.NO_EFFECT
    moved = await store.mark_refund(connection, refund.number, event, snapshot.provider_number)
    if not moved:
        return await _judge_ended(connection, refund, event)
    if event is RefundEvent.PROVIDER_REFUSED:
        return EventOutcome.REFUND_ABNORMAL
    await insert_outbox(connection, "refund_succeeded", refund.number, refund_fact(refund))
    return EventOutcome.REFUND_SUCCEEDED


async def _judge_ended(connection: Connection, refund: Refund, event: RefundEvent) -> EventOutcome:
    """Say what a message means to a refund that it does not move."""
    is_paid = event is RefundEvent.PROVIDER_SUCCEEDED
    if is_paid and await note_doubled(connection, refund):
        return EventOutcome.REFUND_DOUBLED
    return EventOutcome.ALREADY_APPLIED


async def _send_on_shard(stage: PaymentStage, shard: Shard) -> int:
    settings = stage.settings
    due = await store.claim_refunds(shard, settings.refund_batch_max, settings.refund_pauses_ms)
    steps = [
        ((refund.provider, refund.account), _Sending(stage, shard, refund).advance)
        for refund in due
    ]
    await run_bounded(steps, settings.calls_max)
    return len(due)


class _Sending:
    """One refund that is due, and the provider that owes it."""

    def __init__(self, stage: PaymentStage, shard: Shard, refund: Refund) -> None:
        self._stage = stage
        self._shard = shard
        self._refund = refund

    async def advance(self) -> None:
        """Ask whether an earlier call came through; if not, send, with the same number."""
        refund = self._refund
        self._warn_of_limbo()
        provider = self._stage.providers.of(refund.provider, refund.account)
        failpoint("refunds.after_claim")
        if refund.state is not RefundState.REQUESTED:
            told = await provider.query_refund(refund.request())
            if told.value is None or told.value.status is not RefundStatus.NOT_FOUND:
                await self._note(provider, told)
                return
            await self._move(RefundEvent.ANSWER_LOST)
        if await self._move(RefundEvent.SENDING):
            failpoint("refunds.before_send")
            sent = await provider.refund(refund.request())
            failpoint("refunds.after_send")
            if sent.outcome is Outcome.REJECTED and sent.value is None:
                await self._give_up(sent.code)
            else:
                await self._note(provider, sent)

    def _warn_of_limbo(self) -> None:
        """Tell somebody of a refund that no answer ends, or that an accepted one takes too long."""
        settings, refund = self._stage.settings, self._refund
        is_unknown = refund.state is RefundState.UNKNOWN
        patience_ms = settings.unsettled_alarm_ms if is_unknown else settings.refund_alarm_ms
        if self._stage.now() > refund.requested_at + timedelta(milliseconds=patience_ms):
            self._stage.tally.count_refund(refund.provider, "unsettled")
            _log.error("refund_unsettled", refund_id=refund.number, provider=refund.provider)

    async def _note(self, provider: Provider, result: Result[RefundSnapshot]) -> None:
        """Write down what one call came to; an unclear answer changes nothing but `unknown`."""
        snapshot = result.value
        if snapshot is not None and snapshot.status in _EVENT_OF_STATUS:
            verified = _as_message(self._stage, provider, self._refund, result)
            await apply_refund(self._stage, provider, verified, snapshot)
        elif snapshot is None:
            await self._move(RefundEvent.ANSWER_LOST)
            self._stage.tally.count_refund(provider.code, result.outcome)
        elif snapshot.status is RefundStatus.UNKNOWN:
            _tell(self._stage, provider, snapshot.number, EventOutcome.UNKNOWN_STATE)

    async def _give_up(self, code: str) -> None:
        """Leave it to an operator: no balance, a closed account; repeating does not help."""
        await self._move(RefundEvent.PROVIDER_REFUSED)
        refund = self._refund
        self._stage.tally.count_refund(refund.provider, Outcome.REJECTED)
        _log.error("refund_rejected", refund_id=refund.number, provider=refund.provider, code=code)

    async def _move(self, event: RefundEvent) -> bool:
        async with self._shard.connection() as connection:
            return await store.mark_refund(connection, self._refund.number, event)


def _as_message(
    stage: PaymentStage, provider: Provider, refund: Refund, told: Result[RefundSnapshot]
) -> Verified:
    """
    Keep a signed answer like a callback: one record per refund, status and try.

    The try is part of its name because a refund that an operator sends again may
    be refused again: that is news, not a repeat.
    """
    assert told.value is not None
    event = Event(
        provider=provider.code,
        notification_id=f"query:{refund.number}:{told.value.status}:{refund.tries}",
        event_at=stage.now(),
        about=told.value,
    )
    return Verified(event, {}, told.raw)


def _tell(stage: PaymentStage, provider: Provider, number: str, outcome: EventOutcome) -> None:
    stage.tally.count_refund(provider.code, outcome)
    is_alarming = outcome in ALARMING or outcome is EventOutcome.REFUND_ABNORMAL
    write = _log.error if is_alarming else _log.info
    write("refund_told", refund_id=number, provider=provider.code, outcome=outcome)
