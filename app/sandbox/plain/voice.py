"""Callbacks of the small protocol: JSON, signed anew for each try."""

import secrets
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from app.kernel.clock import instant
from app.payments.providers.sandbox_wire import (
    KEY_BYTES_MIN,
    CallbackMessage,
    Keys,
    Purpose,
    Signed,
    sign,
)
from app.sandbox.plain.messages import tell_payment, tell_refund
from app.sandbox.records import Callback, Payment, Refund, Transfer, Wire
from app.sandbox.schedules import WECHATPAY_RETRY_SECONDS
from app.sandbox.voice import Posted, Seal

_ACKNOWLEDGED: Final = 200


class PlainVoice:
    """Speaks to merchants who share a secret with the gateway."""

    retry_seconds = WECHATPAY_RETRY_SECONDS

    def __init__(self, keys: Mapping[str, bytes], page_of: Callable[[str], str]) -> None:
        self._keys = Keys(keys)
        self._page_of = page_of

    def payment_notice(self, told: Payment, to: Payment, due_at_ms: int) -> Callback | None:
        """Write the notification of a payment's state; repeats carry the same id."""
        message = CallbackMessage(
            id=f"evt-{told.key}-{told.state}-{told.captured_minor}",
            created_at=instant(due_at_ms),
            payment=tell_payment(told, self._page_of(told.number)),
        )
        return _callback(message, to, to.callback_url, due_at_ms)

    def refund_notice(self, refund: Refund, payment: Payment) -> Callback | None:
        """Write the notification that a refund has ended, due when it has."""
        at_ms = refund.ready_at_ms
        if at_ms is None:
            return None
        message = CallbackMessage(
            id=f"evt-{refund.number}-{refund.ends_as}",
            created_at=instant(at_ms),
            refund=tell_refund(refund, at_ms),
        )
        return _callback(message, payment, refund.callback_url, at_ms)

    def transfer_notice(self, _transfer: Transfer) -> Callback | None:
        """Say nothing: this protocol sends no money to anybody."""
        return None

    def knows(self, _callback: Callback) -> bool:
        """Whether there are keys to sign it with: there is one merchant, and it stays."""
        return True

    def dress(self, callback: Callback, now_ms: int, seal: Seal) -> Posted:
        """Sign one try."""
        body = callback.body.encode()
        keys = self._keys
        if seal is not Seal.TRUE:
            key_id, _ = keys.signing
            keys = Keys({key_id: secrets.token_bytes(KEY_BYTES_MIN)})
        message = Signed(Purpose.CALLBACK, "POST", urlsplit(callback.url).path, body)
        headers = sign(keys, message, now_ms // 1000, secrets.token_hex(16))
        return Posted({**headers, "Content-Type": "application/json"}, body)

    def is_acknowledged(self, status: int, _body: bytes) -> bool:
        """Whether this answer ends the tries."""
        return status == _ACKNOWLEDGED


def _callback(message: CallbackMessage, payment: Payment, url: str, due_at_ms: int) -> Callback:
    return Callback(
        wire=Wire.PLAIN,
        merchant_id=payment.merchant_id,
        app_id=payment.app_id,
        id=message.id,
        url=url,
        body=msgspec.json.encode(message).decode(),
        due_at_ms=due_at_ms,
    )
