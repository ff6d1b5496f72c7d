"""
The fields of each request to UnionPay; pure.

A payment and a refund are known by `orderId` and `txnTime` together: the time is
the one we gave, so it must be the same in each repetition and in each query.

Source:
    docs/PAYMENTS.md §3.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from app.payments.provider import AttemptReference, ChargeRequest, Product, RefundRequest
from app.payments.providers.unionpay.signing import BY_CERTIFICATE, VERSION
from app.payments.providers.unionpay.wire import AMOUNT_MINOR_MAX, CURRENCY, to_compact


class Address(StrEnum):
    """The last part of the address that a request goes to."""

    FRONT = "frontTransReq.do"
    APP = "appTransReq.do"
    BACK = "backTransReq.do"
    QUERY = "queryTrans.do"


class Kind(StrEnum):
    """What is asked for (txnType)."""

    QUERY = "00"
    PAYMENT = "01"
    REFUND = "04"
    UNDO = "31"


_COMPUTER: Final = "07"
_PHONE: Final = "08"
CHANNELS: Final = {
    Product.PAGE: _COMPUTER,
    Product.WAP: _PHONE,
    Product.H5: _PHONE,
    Product.APP: _PHONE,
}
SEND_BACK_KINDS: Final = frozenset({Kind.REFUND, Kind.UNDO})


def charge_fields(charge: ChargeRequest, callback_url: str) -> dict[str, str]:
    return {
        "txnType": Kind.PAYMENT,
        "txnSubType": "01",
        "bizType": "000201",
        "channelType": CHANNELS[charge.product],
        "orderId": charge.number,
        "txnTime": to_compact(charge.created_at),
        "txnAmt": str(charge.amount_minor),
        "currencyCode": "156",
        "payTimeout": to_compact(charge.expires_at),
        "backUrl": callback_url,
        "frontUrl": charge.return_url or "",
    }


def query_fields(number: str, reference: AttemptReference | RefundRequest) -> dict[str, str]:
    """Ask about a payment or a refund, which have times of their own."""
    sent_at = (
        reference.created_at if isinstance(reference, AttemptReference) else reference.requested_at
    )
    return {
        "txnType": Kind.QUERY,
        "txnSubType": "00",
        "bizType": "000000",
        "channelType": _COMPUTER,
        "orderId": number,
        "txnTime": to_compact(sent_at),
    }


def send_back_fields(kind: Kind, refund: RefundRequest, callback_url: str) -> dict[str, str]:
    """Send money back: a refund of any part, or undoing the whole payment on its day."""
    assert kind in SEND_BACK_KINDS
    return {
        "txnType": kind,
        "txnSubType": "00",
        "bizType": "000201",
        "channelType": _COMPUTER,
        "orderId": refund.number,
        "txnTime": to_compact(refund.requested_at),
        "txnAmt": str(refund.amount_minor),
        "origQryId": refund.attempt.provider_number or "",
        "backUrl": callback_url,
    }


def with_identity(
    fields: Mapping[str, str], merchant_id: str, certificate_id: str
) -> dict[str, str]:
    """Add what every request says of itself and of us."""
    return {
        "version": VERSION,
        "encoding": "UTF-8",
        "signMethod": BY_CERTIFICATE,
        "accessType": "0",
        "merId": merchant_id,
        "certId": certificate_id,
        **fields,
    }


def amount_mistake(amount_minor: int, currency: str) -> str:
    """Say why an amount can never be taken: one word, or nothing."""
    if currency != CURRENCY:
        return "currency_not_taken"
    return "" if 1 <= amount_minor <= AMOUNT_MINOR_MAX else "amount_out_of_bounds"
