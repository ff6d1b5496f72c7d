"""
Money that Alipay sends to a person for us: what is asked, what is told; pure.

Needs certificate mode and a contract of its own. A transfer is known by our
number; a new number sends the money again.

Source:
    docs/PAYMENTS.md §2.6.
"""

from typing import Annotated, Final

import msgspec

from app.payments.provider import (
    MerchantAccount,
    TransferRequest,
    TransferSnapshot,
    TransferState,
)
from app.payments.providers.alipay.trades import NO_AMOUNT, read_amount
from app.payments.providers.alipay.wire import CURRENCY, to_yuan

PRODUCT_CODE: Final = "TRANS_ACCOUNT_NO_PWD"
BIZ_SCENE: Final = "DIRECT_TRANSFER"
TITLE_LENGTH_MAX: Final = 128

Text = Annotated[str, msgspec.Meta(max_length=256)]

_STATES: Final = {
    "SUCCESS": TransferState.SUCCEEDED,
    "FAIL": TransferState.FAILED,
    "CLOSED": TransferState.FAILED,
    "REFUND": TransferState.FAILED,  # sent, then given back to us
    "DEALING": TransferState.PROCESSING,
    "INIT": TransferState.PROCESSING,
    "WAIT_PAY": TransferState.PROCESSING,
}


class TransferAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to alipay.fund.trans.uni.transfer and to its query."""

    out_biz_no: Text
    status: Text
    order_id: Text = ""
    trans_amount: msgspec.Raw = NO_AMOUNT
    fail_reason: str | None = None
    error_code: str | None = None


class TransferOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The `biz_content` of a notification about a transfer."""

    out_biz_no: Text
    status: Text
    product_code: Text
    biz_scene: Text
    trans_amount: msgspec.Raw
    order_id: Text = ""
    fail_reason: str | None = None
    error_code: str | None = None


def transfer_content(transfer: TransferRequest) -> dict[str, object]:
    """Write what is asked: 16 digits from 2088 name a user, an address or a mobile a login."""
    payee = {"identity": transfer.payee_id, "identity_type": _identity_type(transfer.payee_id)}
    if transfer.payee_name:
        payee["name"] = transfer.payee_name
    return {
        "out_biz_no": transfer.number,
        "trans_amount": to_yuan(transfer.amount_minor),
        "product_code": PRODUCT_CODE,
        "biz_scene": BIZ_SCENE,
        "order_title": transfer.description[:TITLE_LENGTH_MAX],
        "payee_info": payee,
    }


def transfer_query_content(number: str) -> dict[str, object]:
    return {"out_biz_no": number, "product_code": PRODUCT_CODE, "biz_scene": BIZ_SCENE}


def read_transfer(
    answer: TransferAnswer, transfer: TransferRequest, account: MerchantAccount
) -> TransferSnapshot:
    """
    Turn an answer into a snapshot; the answer to a request repeats no amount.

    Raises:
        ValueError: it is about another transfer, or its amount is malformed.
    """
    if answer.out_biz_no != transfer.number:
        message = "an answer about another transfer"
        raise ValueError(message)
    return TransferSnapshot(
        number=answer.out_biz_no,
        state=_STATES.get(answer.status, TransferState.UNKNOWN),
        merchant_id=account.merchant_id,
        app_id=account.app_id,
        provider_number=answer.order_id or None,
        amount_minor=read_amount(answer.trans_amount, absent=transfer.amount_minor),
        currency=CURRENCY,
        failure=_failure(answer),
    )


def read_transfer_order(content: bytes, account: MerchantAccount, app_id: str) -> TransferSnapshot:
    """
    Read a notification's `biz_content`; `app_id` is what its form says.

    It names no seller: our own is filled in when the app is ours.

    Raises:
        ValueError: it is no such document, or of another kind of transfer.
    """
    try:
        order = msgspec.json.decode(content, type=TransferOrder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "biz_content is not that of a transfer"
        raise ValueError(message) from error
    if (order.product_code, order.biz_scene) != (PRODUCT_CODE, BIZ_SCENE):
        message = "another kind of transfer"
        raise ValueError(message)
    return TransferSnapshot(
        number=order.out_biz_no,
        state=_STATES.get(order.status, TransferState.UNKNOWN),
        merchant_id=account.merchant_id if app_id == account.app_id else "",
        app_id=app_id,
        provider_number=order.order_id or None,
        amount_minor=read_amount(order.trans_amount),
        currency=CURRENCY,
        failure=_failure(order),
    )


def order_without_payee(content: str) -> str:
    """Return a notification's `biz_content` with nothing but the fields that were read."""
    return msgspec.json.encode(msgspec.json.decode(content, type=TransferOrder)).decode()


def _identity_type(payee_id: str) -> str:
    if payee_id.startswith("2088") and len(payee_id) == 16 and payee_id.isdigit():
        return "ALIPAY_USER_ID"
    is_login = "@" in payee_id or (len(payee_id) == 11 and payee_id.isdigit())
    return "ALIPAY_LOGON_ID" if is_login else "ALIPAY_OPEN_ID"


def _failure(told: TransferAnswer | TransferOrder) -> str:
    return told.error_code or told.fail_reason or ""
