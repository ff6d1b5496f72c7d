"""
Pay the orders of many callbacks in one transaction.

While one batch is being committed the next one gathers (`kernel.group_commit`), one batch at a
time for each shard. Only the plain case is paid together: money, as much as was asked for, for
an order that waits for it. Whatever is not plain is applied alone by `payments.capture`, by the
same rules as ever: a repeat, a contradiction, late money, a group's order, the second message of
an order in a batch, an order that somebody else has locked just then. Should the database refuse
a batch, or not say that it is committed, each of its messages is applied alone, too; one that
was committed after all is then found on record.

Source:
    docs/PAYMENTS.md §6 and docs/decisions/0014-callbacks-together.md.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from app.kernel.errors import Unavailable
from app.kernel.group_commit import GroupCommit
from app.kernel.ids import OrderKey
from app.payments.capture import (
    EventOutcome,
    apply_payment,
    captured_at,
    capturing,
    tell_payment,
)
from app.payments.capture_store import (
    CapturesRefused,
    FoundCapture,
    NewCapture,
    ToldCapture,
    lock_captures,
    write_captures,
)
from app.payments.facts import capture_fact
from app.payments.intent import Check, check_payment
from app.payments.provider import CAPTURED_STATES, PaySnapshot, PayState, Provider, Verified
from app.payments.stage import PaymentStage
from app.storage.shards import Shard

_log = structlog.get_logger(__name__)

_PLAIN_STATES: Final = CAPTURED_STATES - {PayState.REFUNDED}


@dataclass(frozen=True, slots=True)
class _Message:
    """One message that says that money came in."""

    provider: Provider
    verified: Verified
    snapshot: PaySnapshot
    told: ToldCapture


class CaptureBatches:
    """The messages of one process on their way to the shards."""

    def __init__(self, stage: PaymentStage) -> None:
        self._stage = stage
        self._batches = {
            shard.index: GroupCommit(
                partial(self._pay, shard), items_max=stage.settings.capture_batch_max
            )
            for shard in stage.shards.all
        }
        # A message of an order waits behind those that came before it.
        self._alone: Counter[OrderKey] = Counter()

    async def apply(
        self, provider: Provider, verified: Verified, snapshot: PaySnapshot
    ) -> EventOutcome:
        """
        Apply what a provider says of one payment; see `capture.apply_payment`.

        Raises:
            ShardUnavailable: nothing was written, or all of it was; repeat.
        """
        message = self._money(provider, verified, snapshot)
        if message is not None and message.told.order_key not in self._alone:
            key = message.told.order_key
            shard = self._stage.shards.of(key.sale, key.bucket)
            if await self._batches[shard.index].put(message):
                tell_payment(self._stage, provider, snapshot, EventOutcome.PAID)
                return EventOutcome.PAID
        return await self._apply_alone(provider, verified, snapshot)

    def _money(
        self, provider: Provider, verified: Verified, snapshot: PaySnapshot
    ) -> _Message | None:
        """Take a message for a batch, if it tells of money for an order of ours."""
        key = self._stage.order_key(snapshot.number)
        if key is None or snapshot.state not in _PLAIN_STATES or not snapshot.provider_number:
            return None
        told = ToldCapture(
            number=snapshot.number,
            order_key=key,
            provider=provider.code,
            account=provider.account.name,
            notification_id=verified.event.notification_id,
            provider_number=snapshot.provider_number,
        )
        return _Message(provider, verified, snapshot, told)

    async def _apply_alone(
        self, provider: Provider, verified: Verified, snapshot: PaySnapshot
    ) -> EventOutcome:
        key = self._stage.order_key(snapshot.number)
        if key is None:
            return await apply_payment(self._stage, provider, verified, snapshot)
        self._alone[key] += 1
        try:
            return await apply_payment(self._stage, provider, verified, snapshot)
        finally:
            self._alone[key] -= 1
            if not self._alone[key]:
                del self._alone[key]

    async def _pay(self, shard: Shard, batch: Sequence[_Message]) -> list[bool]:
        """Pay what can be paid together; say of each message whether that is committed."""
        try:
            async with capturing(shard) as connection:
                told = [one.told for one in batch]
                found = await lock_captures(connection, told)
                captures = list(self._plain(batch, found))
                if captures:
                    await write_captures(connection, captures)
        except (CapturesRefused, Unavailable) as error:
            _log.warning("captures_refused", messages=len(batch), error=str(error))
            return [False] * len(batch)
        paid = {id(one.verified) for one in captures}
        return [id(one.verified) in paid for one in batch]

    def _plain(
        self, batch: Sequence[_Message], found: dict[str, FoundCapture]
    ) -> Iterable[NewCapture]:
        """Pick the messages that no rule but the common one applies to, one for each order."""
        seen: set[object] = set()
        for one in batch:
            told = one.told
            names = {
                told.order_key,
                (told.provider, told.account, told.notification_id),
                (told.provider, told.provider_number),
            }
            is_first = seen.isdisjoint(names)
            seen |= names
            met = found.get(told.number)
            if is_first and met is not None and self._is_plain(one, met):
                yield _new_capture(one, met)

    def _is_plain(self, message: _Message, met: FoundCapture) -> bool:
        if met.disputed or not met.takes_money:
            return False
        own = self._stage.providers.find(met.attempt.provider, met.attempt.account)
        if own is None:
            return False
        code = message.provider.code
        check = check_payment(met.attempt, own.account, code, message.snapshot)
        return check is Check.ACCEPTED


def _new_capture(message: _Message, met: FoundCapture) -> NewCapture:
    at = captured_at(message.verified, message.snapshot)
    return NewCapture(
        told=message.told,
        captured_minor=message.snapshot.amount_minor,
        captured_at=at,
        fact=capture_fact(met.merchant, met.attempt, at),
        verified=message.verified,
    )
