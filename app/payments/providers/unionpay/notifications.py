"""
Read what UnionPay posts to our `backUrl`: verify, then turn fields into an event; pure.

A notification has no id of its own: what it tells, the platform's number of the
transaction and the code make one, so a repetition is a repeat and a second
outcome is not.

Source:
    docs/PAYMENTS.md §3 and §6.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from app.payments.intent import attempt_of_refund
from app.payments.provider import (
    CAPTURED_STATES,
    Event,
    HttpReply,
    MalformedMessage,
    PaySnapshot,
    RefundSnapshot,
    Refusal,
)
from app.payments.providers.forms import read_form, refuse_folded, without_persons
from app.payments.providers.unionpay.codes import pay_state_of, refund_status_of
from app.payments.providers.unionpay.requests import SEND_BACK_KINDS, Kind
from app.payments.providers.unionpay.signing import Trust, verify_fields
from app.payments.providers.unionpay.wire import (
    CURRENCY_CODES,
    from_compact,
    read_amount,
    traced_at,
)

CODE: Final = "unionpay"

# Every field that decides something, in answers too.
READ_FIELDS: Final = frozenset(
    {
        "currencyCode", "encoding", "merId", "orderId", "origRespCode", "queryId", "respCode",
        "signMethod", "signPubKeyCert", "tn", "traceTime", "txnAmt", "txnTime", "txnType",
        "version",
    }
)  # fmt: skip
# What is kept of a message, of answers too: no card, no customer, no payer's bank.
_KEPT_FIELDS: Final = READ_FIELDS | {
    "accessType", "bizType", "origQryId", "respMsg", "settleAmt", "settleCurrencyCode",
    "settleDate", "signature", "traceNo", "txnSubType",
}  # fmt: skip

_ACK_STATUS: Final = {
    Refusal.BAD_SIGNATURE: 401,
    Refusal.STALE: 401,
    Refusal.MALFORMED: 400,
    Refusal.UNKNOWN_NUMBER: 404,
    Refusal.MISMATCH: 409,
    Refusal.UNAVAILABLE: 503,
}


def read_notification(raw: bytes, trust: Trust, now: datetime) -> Event:
    """
    Check and read one notification.

    Raises:
        BadSignature: UnionPay did not sign it.
        MalformedMessage: it is no form, is ambiguous, or is not one we can read.
    """
    fields = read_form(raw)
    verify_fields(fields, trust, now)
    refuse_folded(fields, READ_FIELDS)
    if fields.get("encoding", "UTF-8").upper() != "UTF-8":
        raise MalformedMessage(why="not in the character set that we asked for")
    try:
        return _event(fields)
    except ValueError as error:
        raise MalformedMessage(why=str(error)) from error


def kept_of(fields: Mapping[str, str]) -> bytes:
    """Write a verified message, or answer, as it is kept: without the payer."""
    return without_persons(fields, _KEPT_FIELDS)


def acknowledgement(refusal: Refusal | None) -> HttpReply:
    """Answer 200, or a status that is not."""
    if refusal is None:
        return HttpReply(200, "text/plain", b"ok")
    return HttpReply(_ACK_STATUS[refusal], "text/plain", b"fail")


def _event(fields: Mapping[str, str]) -> Event:
    kind, code = _present(fields, "txnType"), _present(fields, "respCode")
    query_id = _present(fields, "queryId")
    sent_at = from_compact(_present(fields, "txnTime")).astimezone(UTC)
    if kind == Kind.PAYMENT:
        about: PaySnapshot | RefundSnapshot = _payment(fields, code, sent_at)
    elif kind in SEND_BACK_KINDS:
        about = _refund(fields, code)
    else:
        message = "neither of a payment nor of a refund"
        raise ValueError(message)
    return Event(
        provider=CODE,
        notification_id=f"{kind}:{query_id}:{code}",
        event_at=sent_at,
        about=about,
    )


def _payment(fields: Mapping[str, str], code: str, sent_at: datetime) -> PaySnapshot:
    state = pay_state_of(code)
    paid_at = traced_at(fields.get("traceTime", ""), sent_at)
    return PaySnapshot(
        number=_present(fields, "orderId"),
        state=state,
        merchant_id=_present(fields, "merId"),
        provider_number=_present(fields, "queryId"),
        amount_minor=read_amount(_present(fields, "txnAmt")),
        currency=CURRENCY_CODES.get(_present(fields, "currencyCode"), ""),
        paid_at=paid_at if state in CAPTURED_STATES else None,
    )


def _refund(fields: Mapping[str, str], code: str) -> RefundSnapshot:
    """Read a refund; which payment it undoes is in our own number."""
    number = _present(fields, "orderId")
    return RefundSnapshot(
        number=number,
        attempt_number=attempt_of_refund(number) or "",
        status=refund_status_of(code),
        merchant_id=_present(fields, "merId"),
        provider_number=_present(fields, "queryId"),
        amount_minor=read_amount(_present(fields, "txnAmt")),
        currency=CURRENCY_CODES.get(fields.get("currencyCode", "156"), ""),
    )


def _present(fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name, "")
    if not value or len(value) > 64 or not value.isascii() or not value.isprintable():
        message = f"{name} is missing, too long or not printable ASCII"
        raise ValueError(message)
    return value
