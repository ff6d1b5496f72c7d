"""
Notifications of WeChat Pay: sealed for the merchant, signed anew for each try.

Source:
    docs/PAYMENTS.md §1.5.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from app.payments.provider import CAPTURED_STATES, RefundStatus
from app.sandbox.records import Callback, Payment, Refund, Transfer, Wire
from app.sandbox.schedules import WECHATPAY_RETRY_SECONDS
from app.sandbox.voice import Posted, Seal
from app.sandbox.wechatpay.merchants import Merchant
from app.sandbox.wechatpay.signing import forged_headers, platform_headers, probe_headers, seal
from app.sandbox.wechatpay.words import (
    Document,
    beijing_time,
    refund_notice,
    transaction,
    transfer_answer,
)

_ACKNOWLEDGED: Final = frozenset({200, 204})
_REFUND_EVENTS: Final = {
    RefundStatus.SUCCEEDED: "REFUND.SUCCESS",
    RefundStatus.ABNORMAL: "REFUND.ABNORMAL",
    RefundStatus.CLOSED: "REFUND.CLOSED",
}


class WechatpayVoice:
    """Speaks to merchants over WeChat Pay v3."""

    retry_seconds = WECHATPAY_RETRY_SECONDS

    def __init__(self, merchants: Mapping[str, Merchant]) -> None:
        self._merchants = merchants
        self._stranger = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)

    def payment_notice(self, told: Payment, to: Payment, due_at_ms: int) -> Callback | None:
        """Write the notification of a success; anything else is told to those who ask."""
        if told.state not in CAPTURED_STATES:
            return None
        return self._callback(
            ("TRANSACTION.SUCCESS", "transaction"),
            transaction(told),
            to=(to.merchant_id, to.app_id, to.callback_url),
            due_at_ms=due_at_ms,
        )

    def refund_notice(self, refund: Refund, payment: Payment) -> Callback | None:
        """Write the notification that a refund has ended, due when it has."""
        if refund.ready_at_ms is None:
            return None
        return self._callback(
            (_REFUND_EVENTS[refund.ends_as], "refund"),
            refund_notice(refund, payment),
            to=(payment.merchant_id, payment.app_id, refund.callback_url),
            due_at_ms=refund.ready_at_ms,
        )

    def transfer_notice(self, transfer: Transfer) -> Callback | None:
        """Write the notification that a transfer has ended, due when it has."""
        if transfer.ready_at_ms is None or transfer.batch:
            return None
        return self._callback(
            ("MCHTRANSFER.BILL.FINISHED", "mch_payment"),
            transfer_answer(transfer, transfer.ready_at_ms),
            to=(transfer.merchant_id, transfer.app_id, transfer.callback_url),
            due_at_ms=transfer.ready_at_ms,
        )

    def _callback(
        self, event: tuple[str, str], content: Document, to: tuple[str, str, str], due_at_ms: int
    ) -> Callback:
        """Seal one event; the same news has the same id whenever it is told."""
        event_type, original_type = event
        mchid, app_id, url = to
        plain = msgspec.json.encode(content)
        name = hashlib.sha256(event_type.encode() + plain).hexdigest()[:24]
        body = {
            "id": f"EV-{name}",
            "create_time": beijing_time(due_at_ms),
            "event_type": event_type,
            "resource_type": "encrypt-resource",
            "summary": original_type,
            "resource": {
                "original_type": original_type,
                **seal(self._merchants[mchid], plain, original_type),
            },
        }
        return Callback(
            wire=Wire.WECHATPAY,
            merchant_id=mchid,
            app_id=app_id,
            id=f"EV-{name}",
            url=url,
            body=msgspec.json.encode(body).decode(),
            due_at_ms=due_at_ms,
        )

    def knows(self, callback: Callback) -> bool:
        """Whether there are keys to sign it with."""
        return callback.merchant_id in self._merchants

    def dress(self, callback: Callback, now_ms: int, seal: Seal) -> Posted:
        """Sign one try."""
        merchant = self._merchants[callback.merchant_id]
        body, now_seconds = callback.body.encode(), now_ms // 1000
        match seal:
            case Seal.TRUE:
                headers = platform_headers(merchant, merchant.notify_with, body, now_seconds)
            case Seal.FORGED:
                headers = forged_headers(merchant, body, now_seconds, self._stranger)
            case Seal.PROBE:
                headers = probe_headers(merchant, body, now_seconds)
        return Posted({**headers, "Content-Type": "application/json"}, body)

    def is_acknowledged(self, status: int, _body: bytes) -> bool:
        """Whether this answer ends the tries."""
        return status in _ACKNOWLEDGED
