"""How one protocol tells a merchant what has happened."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from app.sandbox.records import Callback, Payment, Refund, Transfer


class Seal(StrEnum):
    """Whose signature a message carries."""

    TRUE = "true"
    FORGED = "forged"  # of somebody who has not the gateway's key
    PROBE = "probe"  # not one at all: sent on purpose to see whether the merchant looks


@dataclass(frozen=True, slots=True)
class Posted:
    """One try to deliver a callback: what is put on the wire."""

    headers: Mapping[str, str]
    body: bytes


class Voice(Protocol):
    """The callbacks of one protocol."""

    @property
    def retry_seconds(self) -> tuple[int, ...]:
        """How long it waits after each try that was not acknowledged."""
        ...

    def payment_notice(self, told: Payment, to: Payment, due_at_ms: int) -> Callback | None:
        """
        Write the notification of a payment's state; repeats carry the same id.

        None for a state that this gateway tells only to those who ask.

        Args:
            told: what is said, true or not.
            to: the true payment: whose merchant is told, and under which key.
            due_at_ms: when it is to be delivered.
        """
        ...

    def refund_notice(self, refund: Refund, payment: Payment) -> Callback | None:
        """Write the notification that a refund has ended, due when it has."""
        ...

    def transfer_notice(self, transfer: Transfer) -> Callback | None:
        """Write the notification that a transfer has ended, due when it has."""
        ...

    def knows(self, callback: Callback) -> bool:
        """Whether there are keys to sign it with: merchants may be gone after a restart."""
        ...

    def dress(self, callback: Callback, now_ms: int, seal: Seal) -> Posted:
        """Sign one try."""
        ...

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Whether this answer ends the tries."""
        ...
