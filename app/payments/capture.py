"""
Let a provider's message about a payment take effect, once.

Enquiries and the closer end here, and callbacks that `payments.capture_batch` does not
pay together. In one transaction on the
order's shard: lock the order and the attempt, look whether the message is a
repeat, compare it with what we asked for, move the attempt and the order, leave
a fact in the outbox, keep the message. Whoever calls acknowledges afterwards:
a crash before the commit makes the provider repeat, a crash after it makes the
repeat find its own record.

Money that the order cannot take (it was closed, or another attempt had paid it)
is no error: the attempt becomes `paid_late` and one refund with a deterministic
number is asked for in the same transaction.

We give back only what we have recorded. So a payment that was given back in full when
we first hear of it went back without us, in the provider's console or by its own
judgement: it pays for nothing, then or later.

Source:
    docs/CORRECTNESS.md §5, docs/PAYMENTS.md §6 and docs/decisions/0038-money-review.md.
"""

import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime
from enum import StrEnum
from typing import Final

import structlog

from app.kernel.clock import instant, unix_ms
from app.kernel.failpoints import failpoint
from app.orders.groups.store import pay_seat
from app.orders.order import Order
from app.orders.store import MarkPaid, insert_outbox, lock_order, mark_paid
from app.payments import store
from app.payments.event_store import was_told
from app.payments.facts import capture_fact, refund_fact
from app.payments.intent import (
    Attempt,
    AttemptEvent,
    AttemptState,
    Check,
    RefundReason,
    check_payment,
    refund_number,
)
from app.payments.provider import CAPTURED_STATES, PaySnapshot, PayState, Provider, Verified
from app.payments.stage import PaymentStage
from app.storage.shards import Connection, Shard

_log = structlog.get_logger(__name__)


class EventOutcome(StrEnum):
    """What became of a verified message."""

    PAID = "paid"
    PAID_LATE = "paid_late"
    CLOSED = "closed"
    REFUND_SUCCEEDED = "refund_succeeded"
    REFUND_ABNORMAL = "refund_abnormal"
    REFUND_DOUBLED = "refund_doubled"  # a person had paid it out: the shopper has it twice
    ALREADY_APPLIED = "already_applied"
    NO_EFFECT = "no_effect"  # true, and nothing follows from it
    UNKNOWN_STATE = "unknown_state"  # true, and a word that we do not know: no effect
    REFUNDED_ELSEWHERE = "refunded_elsewhere"  # paid and given back in full without us
    SECOND_CAPTURE = "second_capture"  # one number charged twice: somebody must look
    AMOUNT_MISMATCH = "amount_mismatch"
    CURRENCY_MISMATCH = "currency_mismatch"
    ACCOUNT_MISMATCH = "account_mismatch"
    PROVIDER_NUMBER_TAKEN = "provider_number_taken"  # the same money for two attempts
    NOTIFICATION_REUSED = "notification_reused"  # one id for two payments; not recorded
    UNKNOWN_NUMBER = "unknown_number"  # not one of ours; not recorded


ALARMING: Final = frozenset(
    {
        EventOutcome.REFUNDED_ELSEWHERE,
        EventOutcome.REFUND_DOUBLED,
        EventOutcome.SECOND_CAPTURE,
        EventOutcome.UNKNOWN_STATE,
        EventOutcome.AMOUNT_MISMATCH,
        EventOutcome.CURRENCY_MISMATCH,
        EventOutcome.ACCOUNT_MISMATCH,
        EventOutcome.PROVIDER_NUMBER_TAKEN,
        EventOutcome.NOTIFICATION_REUSED,
        EventOutcome.UNKNOWN_NUMBER,
    },
)


async def apply_payment(
    stage: PaymentStage, provider: Provider, verified: Verified, snapshot: PaySnapshot
) -> EventOutcome:
    """
    Apply what a provider says of one payment.

    Safe to repeat and to run twice at once: a repeat has no second effect and
    the same outcome.

    Args:
        stage: the collaborators.
        provider: whose signature was checked, under the account it was checked for.
        verified: the message.
        snapshot: what the message is about.

    Raises:
        ShardUnavailable: nothing was written, or all of it was; repeat.
    """
    key = stage.order_key(snapshot.number)
    outcome, repeated = EventOutcome.UNKNOWN_NUMBER, False
    if key is not None:
        async with capturing(stage.shards.of(key.sale, key.bucket)) as connection:
            order = await lock_order(connection, key)
            attempt = await store.lock_attempt(connection, snapshot.number)
            if order is not None and attempt is not None:
                bound = _Capture(stage, provider, verified, snapshot, connection)
                outcome, repeated = await bound.apply(order, attempt)
    if not repeated:
        tell_payment(stage, provider, snapshot, outcome)
    return outcome


@contextlib.asynccontextmanager
async def capturing(shard: Shard) -> AsyncGenerator[Connection]:
    """Lend a connection in the transaction in which one message or several take effect."""
    async with shard.transaction() as connection:
        yield connection
        failpoint("callback.before_commit")
    failpoint("callback.after_commit")


class _Capture:
    """One message on its way into one attempt, inside one transaction."""

    def __init__(
        self,
        stage: PaymentStage,
        provider: Provider,
        verified: Verified,
        snapshot: PaySnapshot,
        connection: Connection,
    ) -> None:
        self._stage = stage
        self._provider = provider
        self._verified = verified
        self._snapshot = snapshot
        self._connection = connection

    async def apply(self, order: Order, attempt: Attempt) -> tuple[EventOutcome, bool]:
        """Return the outcome, and whether it is that of an earlier record."""
        repeated = await find_repeat(
            self._connection, self._provider, self._verified, attempt.number
        )
        if repeated is not None:
            return repeated, True
        outcome = await self._take_effect(order, attempt)
        account = self._provider.account.name
        await store.insert_event(self._connection, account, attempt.number, outcome, self._verified)
        return outcome, False

    async def _take_effect(self, order: Order, attempt: Attempt) -> EventOutcome:
        snapshot = self._snapshot
        own = self._stage.providers.of(attempt.provider, attempt.account)
        check = check_payment(attempt, own.account, self._provider.code, snapshot)
        if check is not Check.ACCEPTED:
            return EventOutcome(check)
        if snapshot.state in CAPTURED_STATES:
            return await self._capture(order, attempt)
        if snapshot.state is PayState.UNKNOWN:
            return EventOutcome.UNKNOWN_STATE
        if snapshot.state is PayState.CLOSED:
            closed = await store.mark_closed(self._connection, attempt.number)
            return EventOutcome.CLOSED if closed else EventOutcome.NO_EFFECT
        return EventOutcome.NO_EFFECT

    async def _capture(self, order: Order, attempt: Attempt) -> EventOutcome:
        provider_number = self._snapshot.provider_number
        assert provider_number is not None, "the check lets no capture pass without"
        if attempt.is_captured:
            same = attempt.provider_number == provider_number
            return EventOutcome.ALREADY_APPLIED if same else EventOutcome.SECOND_CAPTURE
        if self._snapshot.state is PayState.REFUNDED or await self._went_back(attempt):
            await store.mark_closed(self._connection, attempt.number)
            return EventOutcome.REFUNDED_ELSEWHERE
        if await store.other_capture(self._connection, attempt, provider_number) is not None:
            return EventOutcome.PROVIDER_NUMBER_TAKEN
        match await mark_paid(
            self._connection,
            order.key,
            self._captured_at(),
            actor=attempt.provider,
            detail={"payment_id": attempt.number},
        ):
            case MarkPaid.PAID:
                return await self._note_payment(order, attempt)
            case MarkPaid.CLOSED:
                return await self._note_late(order, attempt, RefundReason.LATE_PAYMENT)
            case MarkPaid.ALREADY_PAID:
                return await self._note_late(order, attempt, RefundReason.DOUBLE_PAYMENT)
            case MarkPaid.MISSING:
                raise AssertionError(order.key)

    async def _went_back(self, attempt: Attempt) -> bool:
        """Whether a message that overtook this one said that the money went back."""
        if attempt.state is not AttemptState.CLOSED:
            return False
        outcome = EventOutcome.REFUNDED_ELSEWHERE
        return await was_told(self._connection, attempt.number, outcome)

    async def _note_payment(self, order: Order, attempt: Attempt) -> EventOutcome:
        await self._mark_captured(attempt, AttemptEvent.CAPTURED)
        fact = capture_fact(order.merchant, attempt, self._captured_at())
        await insert_outbox(self._connection, "payment_captured", attempt.number, fact)
        if order.group_id is not None:
            await pay_seat(self._connection, order.key, order.group_id)
        return EventOutcome.PAID

    async def _note_late(
        self, order: Order, attempt: Attempt, reason: RefundReason
    ) -> EventOutcome:
        await self._mark_captured(attempt, AttemptEvent.CAPTURED_LATE)
        new = store.NewRefund(
            number=refund_number(attempt.number, reason, 1),
            attempt_number=attempt.number,
            order_key=order.key,
            reason=reason,
            late=True,
            amount_minor=self._snapshot.amount_minor,
            currency=self._snapshot.currency,
        )
        refund = await store.insert_refund(self._connection, new)
        fact = capture_fact(order.merchant, attempt, self._captured_at())
        late = {**fact, "refund_no": refund.number}
        await insert_outbox(self._connection, "late_payment", attempt.number, late)
        await insert_outbox(
            self._connection, "refund_requested", refund.number, refund_fact(refund)
        )
        return EventOutcome.PAID_LATE

    async def _mark_captured(self, attempt: Attempt, event: AttemptEvent) -> None:
        moved = await store.mark_captured(self._connection, attempt.number, event, self._snapshot)
        assert moved, f"locked, not captured, and yet not captured: {attempt.number}"

    def _captured_at(self) -> datetime:
        return captured_at(self._verified, self._snapshot)


def captured_at(verified: Verified, snapshot: PaySnapshot) -> datetime:
    """Say when money came in, to the millisecond: the row and the fact say the same."""
    return instant(unix_ms(snapshot.paid_at or verified.event.event_at))


async def find_repeat(
    connection: Connection, provider: Provider, verified: Verified, attempt_number: str
) -> EventOutcome | None:
    """Return the outcome of a message that was recorded before; None for a new one."""
    event = verified.event
    known = await store.recorded_event(
        connection, provider.code, provider.account.name, event.notification_id
    )
    if known is None:
        return None
    recorded_for, outcome = known
    if recorded_for != attempt_number:
        return EventOutcome.NOTIFICATION_REUSED
    return EventOutcome(outcome)


def tell_payment(
    stage: PaymentStage, provider: Provider, snapshot: PaySnapshot, outcome: EventOutcome
) -> None:
    """Count and log what became of a message, once its transaction is committed."""
    stage.tally.count_payment(provider.code, outcome)
    paid = outcome in {EventOutcome.PAID, EventOutcome.PAID_LATE}
    if paid and snapshot.state is PayState.PARTIAL_REFUND:
        _log.error("payment_partly_refunded_elsewhere", payment_id=snapshot.number)
    write = _log.error if outcome in ALARMING else _log.info
    write(
        "payment_told",
        outcome=outcome,
        payment_id=snapshot.number,
        provider=provider.code,
        account=provider.account.name,
        amount_minor=snapshot.amount_minor,
        currency=snapshot.currency,
    )
