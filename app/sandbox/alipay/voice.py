"""
Notifications of Alipay: a form, signed, the same bytes at every try.

Source:
    docs/PAYMENTS.md §2.4.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from app.payments.provider import PayState, RefundStatus
from app.sandbox.alipay.merchants import Merchant
from app.sandbox.alipay.signing import sign_notification
from app.sandbox.alipay.words import beijing_time, trade_notice, yuan
from app.sandbox.records import Callback, Payment, Refund, Transfer, Wire
from app.sandbox.schedules import ALIPAY_RETRY_SECONDS
from app.sandbox.voice import Posted, Seal

_ACKNOWLEDGED: Final = (200, b"success")
_CONTENT_TYPE: Final = "application/x-www-form-urlencoded; charset=utf-8"
_SIGNATURE_BYTES: Final = 256


class AlipayVoice:
    """Speaks to merchants over Alipay."""

    retry_seconds = ALIPAY_RETRY_SECONDS

    def __init__(self, merchants: Mapping[str, Merchant]) -> None:
        self._merchants = merchants
        self._stranger = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)

    def payment_notice(self, told: Payment, to: Payment, due_at_ms: int) -> Callback | None:
        """Write the notification of a trade's status."""
        if not told.is_met:
            return None  # a code that nobody has scanned is no trade
        return _callback(trade_notice(told, due_at_ms), to, due_at_ms)

    def refund_notice(self, refund: Refund, payment: Payment) -> Callback | None:
        """Tell the trade again, with what has gone back of it."""
        if refund.ready_at_ms is None or refund.ends_as is not RefundStatus.SUCCEEDED:
            return None
        told = trade_notice(payment, refund.ready_at_ms) | {
            "refund_fee": yuan(payment.refunded_minor),
            "out_biz_no": refund.number,
            "gmt_refund": beijing_time(refund.ready_at_ms),
        }
        if payment.state is PayState.REFUNDED:
            told["gmt_close"] = beijing_time(refund.ready_at_ms)
        return _callback(told, payment, refund.ready_at_ms)

    def transfer_notice(self, _transfer: Transfer) -> Callback | None:
        """Say nothing: news of transfers go to an app's own gateway, which is not set."""
        return None

    def knows(self, callback: Callback) -> bool:
        """Whether there are keys to sign it with."""
        return callback.app_id in self._merchants

    def dress(self, callback: Callback, _now_ms: int, seal: Seal) -> Posted:
        """Sign one try; nothing in it depends on when it is sent."""
        parameters = msgspec.json.decode(callback.body, type=dict[str, str])
        true = self._merchants[callback.app_id].private_key
        signed = sign_notification(true if seal is Seal.TRUE else self._stranger, parameters)
        if seal is Seal.PROBE:
            signed["sign"] = base64.b64encode(secrets.token_bytes(_SIGNATURE_BYTES)).decode()
        return Posted({"Content-Type": _CONTENT_TYPE}, urlencode(signed).encode())

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Whether the answer is seven letters, and not one more."""
        return (status, body) == _ACKNOWLEDGED


def _callback(told: dict[str, str], payment: Payment, due_at_ms: int) -> Callback:
    news = {name: value for name, value in told.items() if name != "notify_time"}
    notify_id = hashlib.sha256(msgspec.json.encode(news, order="sorted")).hexdigest()[:34]
    return Callback(
        wire=Wire.ALIPAY,
        merchant_id=payment.merchant_id,
        app_id=payment.app_id,
        id=notify_id,
        url=payment.callback_url,
        body=msgspec.json.encode({**told, "notify_id": notify_id}).decode(),
        due_at_ms=due_at_ms,
    )
