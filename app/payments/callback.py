"""
A provider tells us something: verify, apply, commit, acknowledge.

Nothing is written for a message whose signature does not hold. A verified one
is acknowledged when it is recorded with its effect, refused when it contradicts
what we asked for (then it is kept as a letter), and every repeat gets the answer
of the first.
"""

from collections.abc import Mapping
from typing import Final

import structlog

from app.kernel.errors import BadSignature, Unavailable, Untrusted
from app.payments.capture import EventOutcome
from app.payments.capture_batch import CaptureBatches
from app.payments.letters import apply_or_keep
from app.payments.provider import (
    HttpReply,
    Provider,
    Refusal,
    StaleMessage,
)
from app.payments.stage import PaymentStage

_log = structlog.get_logger(__name__)

_REFUSALS: Final = {
    EventOutcome.AMOUNT_MISMATCH: Refusal.MISMATCH,
    EventOutcome.CURRENCY_MISMATCH: Refusal.MISMATCH,
    EventOutcome.ACCOUNT_MISMATCH: Refusal.MISMATCH,
    EventOutcome.PROVIDER_NUMBER_TAKEN: Refusal.MISMATCH,
    EventOutcome.NOTIFICATION_REUSED: Refusal.MISMATCH,
    EventOutcome.UNKNOWN_NUMBER: Refusal.UNKNOWN_NUMBER,
}


class Callbacks:
    """Takes callbacks; those that come while others are committed are committed together."""

    def __init__(self, stage: PaymentStage) -> None:
        self._stage = stage
        self._captures = CaptureBatches(stage)

    async def receive(
        self, provider: Provider, headers: Mapping[str, str], raw: bytes
    ) -> HttpReply:
        """
        Take one callback to its end.

        Args:
            provider: by the route; its keys decide, not what the body says.
            headers: as received, names compared without regard to case.
            raw: the body as received, not yet decoded.

        Returns:
            The provider's own kind of acknowledgement; never raises for what the
            message or a store does.
        """
        refusal, result = await self._receive(provider, headers, raw)
        self._stage.tally.count_callback(provider.code, result)
        return provider.ack(refusal)

    async def _receive(
        self, provider: Provider, headers: Mapping[str, str], raw: bytes
    ) -> tuple[Refusal | None, str]:
        try:
            verified = provider.parse_notification(headers, raw)
        except Untrusted as error:
            refusal = _refusal_of(error)
            _log.warning(
                "callback_refused",
                provider=provider.code,
                account=provider.account.name,
                reason=refusal,
            )
            return refusal, refusal
        try:
            outcome = await apply_or_keep(self._stage, self._captures, provider, verified)
        except Unavailable as error:
            _log.warning("callback_postponed", provider=provider.code, error=str(error))
            return Refusal.UNAVAILABLE, Refusal.UNAVAILABLE
        return _REFUSALS.get(outcome), outcome


def _refusal_of(error: Untrusted) -> Refusal:
    if isinstance(error, BadSignature):
        return Refusal.BAD_SIGNATURE
    return Refusal.STALE if isinstance(error, StaleMessage) else Refusal.MALFORMED
