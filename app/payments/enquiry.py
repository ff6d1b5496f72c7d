"""
Ask providers about attempts that nobody told us the end of.

Callbacks get lost, and a create call may end without an answer; the schedule of
questions finds every payment all the same. An attempt that is past its expiry,
or whose order can no longer take money, is closed at the provider first.
"""

import asyncio
import contextlib
from datetime import timedelta
from functools import partial

import structlog

from app.orders.closer import AttemptsSettled
from app.orders.order import OrderState
from app.payments import store
from app.payments.calls import count_over, run_bounded
from app.payments.expiry import ask_about, close_attempt
from app.payments.intent import Attempt, next_query_at
from app.payments.stage import PaymentStage
from app.storage.shards import Shard

_log = structlog.get_logger(__name__)


async def enquire_once(stage: PaymentStage) -> int:
    """
    Ask about every attempt that is due, on every shard; one bounded pass.

    Returns:
        How many attempts were asked about.

    Raises:
        ShardUnavailable: a shard did not answer; what was taken is due again later.
    """
    return await count_over(stage.shards.all, partial(_enquire_on, stage))


async def _enquire_on(stage: PaymentStage, shard: Shard) -> int:
    settings = stage.settings
    due = await store.claim_attempts(shard, settings.query_batch_max, settings.claim_ms)
    calls = [(one.attempt.route, partial(_enquire, stage, shard, one)) for one in due]
    # Longer than its claim a pass may not last: by then others may have taken the rest.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.claim_ms / 1000):
            await run_bounded(calls, settings.calls_max)
    return len(due)


async def _enquire(stage: PaymentStage, shard: Shard, due: store.DueAttempt) -> None:
    attempt = due.attempt
    can_be_paid = due.order_state is OrderState.PENDING and stage.now() < attempt.expires_at
    ask = ask_about if can_be_paid else close_attempt
    if await ask(stage, attempt) is AttemptsSettled.UNKNOWN:
        now = stage.now()
        _warn_of_limbo(stage, attempt)
        until = next_query_at(attempt.queries, now, attempt.expires_at, stage.settings)
        await store.postpone_query(shard, attempt.number, until)


def _warn_of_limbo(stage: PaymentStage, attempt: Attempt) -> None:
    """Half an hour after its expiry an attempt is no longer waited for in silence."""
    patience = timedelta(milliseconds=stage.settings.unsettled_alarm_ms)
    if stage.now() > attempt.expires_at + patience:
        stage.tally.count_payment(attempt.provider, "unsettled")
        _log.error("payment_unsettled", payment_id=attempt.number, provider=attempt.provider)
