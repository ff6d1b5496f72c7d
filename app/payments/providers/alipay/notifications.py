"""
Read what Alipay posts to us: verify, then turn fields into an event; pure.

Two kinds come. A trade's status is posted to the `notify_url` of its request; a
transfer's is posted to the app's gateway address, with its fields in
`biz_content`. Both are forms signed with RSA2.

There is no time window: a repetition may be a day old and byte for byte the
same. What protects is the id of the notification and the state of the attempt.

Source:
    docs/PAYMENTS.md §2.4, §2.6 and §6.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.kernel.clock import instant, is_in_reach
from app.kernel.errors import BadSignature
from app.payments.provider import (
    Event,
    HttpReply,
    MalformedMessage,
    MerchantAccount,
    PaySnapshot,
    Refusal,
    Snapshot,
)
from app.payments.providers.alipay.signing import SIGN_TYPE, is_signed_by, notification_text
from app.payments.providers.alipay.trades import TradeTold, pay_state
from app.payments.providers.alipay.transfers import order_without_payee, read_transfer_order
from app.payments.providers.alipay.wire import CURRENCY, from_beijing, from_yuan
from app.payments.providers.forms import read_form, refuse_folded, without_persons

CODE: Final = "alipay"
TRADE_TYPE: Final = "trade_status_sync"
TRANSFER_METHOD: Final = "alipay.fund.trans.order.changed"

# Every field that decides something.
READ_FIELDS: Final = frozenset(
    {
        "app_id", "biz_content", "charset", "gmt_payment", "msg_method", "notify_id",
        "notify_time", "notify_type", "out_trade_no", "refund_fee", "seller_id",
        "total_amount", "trade_no", "trade_status", "utc_timestamp",
    }
)  # fmt: skip


# What is kept of a message: neither who paid, nor by what card, nor what was passed back.
_KEPT_FIELDS: Final = READ_FIELDS | {
    "auth_app_id", "buyer_pay_amount", "gmt_close", "gmt_create", "gmt_refund",
    "invoice_amount", "out_biz_no", "point_amount", "receipt_amount", "sign", "sign_type",
    "subject", "version",
}  # fmt: skip


class UnknownSigner(BadSignature):
    """It is signed as it should be, by nobody we know: forged, or a key that came after ours."""


def read_notification(
    raw: bytes, keys: Collection[RSAPublicKey], account: MerchantAccount
) -> Event:
    """
    Check and read one notification.

    Args:
        raw: the body as received.
        keys: Alipay's, 1..n.
        account: ours; only a transfer's message, which names no seller, needs it.

    Raises:
        UnknownSigner: it is RSA2 by none of these keys.
        BadSignature: it is not RSA2.
        MalformedMessage: it is no form, is ambiguous, or is not one we can read.
    """
    fields = read_form(raw)
    _verify(fields, keys)
    refuse_folded(fields, READ_FIELDS)
    if fields.get("charset", "utf-8").lower() != "utf-8":
        raise MalformedMessage(why="not in the character set that we asked for")
    try:
        if fields.get("msg_method") == TRANSFER_METHOD:
            return _transfer_event(fields, account)
        if fields.get("notify_type") == TRADE_TYPE:
            return _trade_event(fields)
    except ValueError as error:
        raise MalformedMessage(why=str(error)) from error
    raise MalformedMessage(why="neither of a trade nor of a transfer")


def kept_of(raw: bytes) -> bytes:
    """Write a notification that was read as it is kept: without the payer and the payee."""
    fields = read_form(raw)
    if fields.get("msg_method") != TRANSFER_METHOD:
        return without_persons(fields, _KEPT_FIELDS - {"biz_content"})
    fields["biz_content"] = order_without_payee(fields["biz_content"])
    return without_persons(fields, _KEPT_FIELDS)


def acknowledgement(refusal: Refusal | None) -> HttpReply:
    """Write `success`, seven letters and nothing else, or `fail`, which makes Alipay repeat."""
    return HttpReply(200, "text/plain", b"success" if refusal is None else b"fail")


def _verify(fields: Mapping[str, str], keys: Collection[RSAPublicKey]) -> None:
    if fields.get("sign_type") != SIGN_TYPE:
        raise BadSignature(why="not RSA2")
    signature = fields.get("sign", "")
    if not is_signed_by(keys, notification_text(fields).encode(), signature):
        raise UnknownSigner(why="not signed by a key that we know")


def _trade_event(fields: Mapping[str, str]) -> Event:
    paid_at = fields.get("gmt_payment")
    told = TradeTold(
        status=_present(fields, "trade_status"),
        total_minor=from_yuan(_present(fields, "total_amount")),
        refunded_minor=from_yuan(fields.get("refund_fee") or "0"),
        paid_at=from_beijing(paid_at) if paid_at else None,
    )
    about = PaySnapshot(
        number=_present(fields, "out_trade_no"),
        state=pay_state(told),
        merchant_id=_present(fields, "seller_id"),
        app_id=_present(fields, "app_id"),
        provider_number=_present(fields, "trade_no", length_max=64),
        amount_minor=told.total_minor,
        currency=CURRENCY,
        paid_at=told.paid_at,
    )
    return _event(fields, about, from_beijing(_present(fields, "notify_time")))


def _transfer_event(fields: Mapping[str, str], account: MerchantAccount) -> Event:
    content = _present(fields, "biz_content").encode()
    about = read_transfer_order(content, account, _present(fields, "app_id"))
    return _event(fields, about, _instant(_present(fields, "utc_timestamp")))


def _event(fields: Mapping[str, str], about: Snapshot, event_at: datetime) -> Event:
    return Event(
        provider=CODE,
        notification_id=_present(fields, "notify_id", length_max=128),
        event_at=event_at.astimezone(UTC),
        about=about,
    )


def _present(fields: Mapping[str, str], name: str, length_max: int = 65_536) -> str:
    value = fields.get(name, "")
    if not value or len(value) > length_max or not value.isprintable():
        message = f"{name} is missing, too long or not printable"
        raise ValueError(message)
    return value


def _instant(unix_ms: str) -> datetime:
    """Read Unix milliseconds in decimal digits."""
    try:
        moment = instant(msgspec.json.decode(unix_ms, type=int, strict=True))
    except (msgspec.DecodeError, OverflowError, OSError) as error:
        message = "utc_timestamp is no instant"
        raise ValueError(message) from error
    if not is_in_reach(moment):
        message = "utc_timestamp is out of reach"
        raise ValueError(message)
    return moment
