"""
Keep verified messages that cannot be applied, and apply them again when an operator says so.

A second capture, another amount, a number that is not ours: the message is true, money may have
moved, and no rule of ours says what follows. It is kept as a `callback` letter before the provider
is answered. A retry is judged by the same rules as the message was, under a notification of its
own, for the first one's outcome is on record.
"""

import base64
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec

from app.kernel.errors import ProviderUnavailable
from app.payments.calls import count_over
from app.payments.capture import ALARMING, EventOutcome, apply_payment
from app.payments.capture_batch import CaptureBatches
from app.payments.intent import attempt_of_refund
from app.payments.letter_store import (
    CallbackLetter,
    CallbackRow,
    keep_callback,
    mark_callback_done,
    take_callback,
)
from app.payments.provider import (
    Event,
    PaySnapshot,
    Provider,
    RefundSnapshot,
    Snapshot,
    TransferSnapshot,
    Verified,
)
from app.payments.refunds import apply_refund
from app.payments.stage import PaymentStage
from app.storage.shards import Shard

RETRIES_MAX: Final = 100  # of one pass over one shard
NOT_CONFIGURED: Final = "provider_not_configured"
_KEPT: Final = ALARMING | {NOT_CONFIGURED}
_ABOUT: Final[Mapping[str, type[Snapshot]]] = {
    "payment": PaySnapshot,
    "refund": RefundSnapshot,
    "transfer": TransferSnapshot,
}
_KINDS: Final = {type_: kind for kind, type_ in _ABOUT.items()}


async def apply_message(
    stage: PaymentStage, provider: Provider, verified: Verified
) -> EventOutcome:
    """
    Apply one verified message, about a payment or a refund.

    Nothing in this stage sends transfers, so one about a transfer names no number
    of ours and becomes a letter.

    Raises:
        ShardUnavailable: nothing was written, or all of it was; repeat.
    """
    about = verified.event.about
    if isinstance(about, PaySnapshot):
        return await apply_payment(stage, provider, verified, about)
    if isinstance(about, RefundSnapshot):
        return await apply_refund(stage, provider, verified, about)
    return EventOutcome.UNKNOWN_NUMBER


async def apply_or_keep(
    stage: PaymentStage, captures: CaptureBatches, provider: Provider, verified: Verified
) -> EventOutcome:
    """
    Apply one message, or keep it as a letter, once; both before anybody acknowledges it.

    Args:
        stage: the collaborators.
        captures: where messages about payments are applied together.
        provider: whose signature was checked, under the account it was checked for.
        verified: the message.

    Raises:
        ShardUnavailable: not acknowledged, so that the provider repeats it.
    """
    about = verified.event.about
    if isinstance(about, PaySnapshot):
        outcome = await captures.apply(provider, verified, about)
    else:
        outcome = await apply_message(stage, provider, verified)
    if outcome in ALARMING:
        event = verified.event
        told_by = f"{provider.code}:{provider.account.name}"
        business_id = f"{told_by}:{event.notification_id}:{event.about.number}"
        payload = _payload(provider, verified)
        letter = _letter(payload, verified, outcome)
        await keep_callback(_shard_of(stage, event), business_id, payload, letter)
    return outcome


async def retry_callbacks_once(stage: PaymentStage) -> int:
    """
    Apply again what operators want to be applied again; one bounded pass.

    A message of a provider that is not configured any more becomes a letter again, so
    that it keeps no other waiting.

    Returns:
        How many messages were tried.

    Raises:
        ShardUnavailable: what was taken is taken again later.
    """
    return await count_over(stage.shards.all, partial(_retry_on_shard, stage))


async def _retry_on_shard(stage: PaymentStage, shard: Shard) -> int:
    for tried in range(RETRIES_MAX):
        if not await _retry_oldest(stage, shard):
            return tried
    return RETRIES_MAX


async def _retry_oldest(stage: PaymentStage, shard: Shard) -> bool:
    async with shard.transaction() as connection:
        row = await take_callback(connection)
        if row is None:
            return False
        verified = _read_payload(row)
        outcome = await _apply_again(stage, row, verified)
        letter = _letter(row.payload, verified, outcome) if outcome in _KEPT else None
        await mark_callback_done(connection, row, letter)
    return True


async def _apply_again(stage: PaymentStage, row: CallbackRow, verified: Verified) -> str:
    try:
        provider = stage.providers.of(row.payload["provider"], row.payload["account"])
        return await apply_message(stage, provider, verified)
    except ProviderUnavailable:
        return NOT_CONFIGURED


def _shard_of(stage: PaymentStage, event: Event) -> Shard:
    """Name the shard of the order a message speaks of; the first one for no order of ours."""
    about = event.about
    is_payment = isinstance(about, PaySnapshot)
    number = about.number if is_payment else attempt_of_refund(about.number)
    key = None if number is None else stage.order_key(number)
    return stage.shards.directory if key is None else stage.shards.of(key.sale, key.bucket)


def _letter(payload: Mapping[str, Any], verified: Verified, reason: str) -> CallbackLetter:
    event = verified.event
    detail = {
        "provider": payload["provider"],
        "account": payload["account"],
        "notification_id": event.notification_id,
        "about": msgspec.to_builtins(event.about),
    }
    return CallbackLetter(reason=reason, raw=verified.raw, detail=detail)


def _payload(provider: Provider, verified: Verified) -> dict[str, Any]:
    """Write a message so that the same can be read again, whatever the provider's format."""
    event = verified.event
    return {
        "provider": provider.code,
        "account": provider.account.name,
        "kind": _KINDS[type(event.about)],
        "notification_id": event.notification_id,
        "event_at": event.event_at.isoformat(),
        "about": msgspec.to_builtins(event.about),
        "headers": dict(verified.headers),
        "raw": base64.b64encode(verified.raw).decode(),
    }


def _read_payload(row: CallbackRow) -> Verified:
    """Read a message; its signature was checked when it was kept."""
    told = row.payload
    event = Event(
        provider=told["provider"],
        notification_id=f"{told['notification_id']}#retry-{row.attempts + 1}",
        event_at=datetime.fromisoformat(told["event_at"]),
        about=msgspec.convert(told["about"], _ABOUT[told["kind"]]),
    )
    return Verified(event, told["headers"], base64.b64decode(told["raw"]))
