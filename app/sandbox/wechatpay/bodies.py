"""
What merchants send, as types; what breaks a rule here is answered with PARAM_ERROR.

Source:
    docs/PAYMENTS.md §1.6, §1.8 and §1.11.
"""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import msgspec

Fen: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
OutTradeNo: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-|*]{6,32}\Z")]
OutRefundNo: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-|*@]{1,64}\Z")]
OutBillNo: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{1,32}\Z")]
NotifyUrl: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^https?://[^?#]{1,247}\Z")]
# The platform's columns hold three bytes of UTF-8 for a character: no emoji.
Text127: TypeAlias = Annotated[
    str, msgspec.Meta(min_length=1, max_length=127, pattern="^[\x00-\uffff]*\\Z")
]


class CreateAmount(msgspec.Struct, frozen=True):
    """`total` in fen."""

    total: Fen
    currency: Literal["CNY"] = "CNY"


class Payer(msgspec.Struct, frozen=True):
    """Who pays, in the merchant's app."""

    openid: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class H5Scene(msgspec.Struct, frozen=True):
    """Which browser the shopper comes from."""

    type: str


class Scene(msgspec.Struct, frozen=True):
    """Where the shopper is."""

    payer_client_ip: Annotated[str, msgspec.Meta(min_length=1, max_length=45)]
    h5_info: H5Scene | None = None


class CreateBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v3/pay/transactions/{product}."""

    appid: str
    mchid: str
    description: Text127
    out_trade_no: OutTradeNo
    notify_url: NotifyUrl
    amount: CreateAmount
    time_expire: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    attach: Annotated[str, msgspec.Meta(max_length=128)] = ""
    payer: Payer | None = None
    scene_info: Scene | None = None


class CloseBody(msgspec.Struct, frozen=True):
    """POST …/close."""

    mchid: str


class RefundAmount(msgspec.Struct, frozen=True):
    """In fen; `total` is the payment's."""

    refund: Fen
    total: Fen
    currency: Literal["CNY"]


class RefundBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v3/refund/domestic/refunds; names the payment in one of two ways."""

    out_refund_no: OutRefundNo
    amount: RefundAmount
    transaction_id: str | None = None
    out_trade_no: OutTradeNo | None = None
    reason: Annotated[str, msgspec.Meta(max_length=80)] = ""
    notify_url: NotifyUrl | None = None


class AbnormalRefundBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v3/refund/domestic/refunds/{refund_id}/apply-abnormal-refund."""

    out_refund_no: OutRefundNo
    type: Literal["USER_BANK_CARD", "MERCHANT_BANK_CARD"]


class TransferBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v3/fund-app/mch-transfer/transfer-bills."""

    appid: str
    out_bill_no: OutBillNo
    transfer_scene_id: Annotated[str, msgspec.Meta(min_length=1, max_length=36)]
    openid: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    transfer_amount: Fen
    transfer_remark: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    transfer_scene_report_infos: list[dict[str, str]]
    user_name: str | None = None  # encrypted for the platform
    notify_url: NotifyUrl | None = None
    user_recv_perception: str = ""


class BatchDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer of a batch."""

    out_detail_no: OutBillNo
    transfer_amount: Fen
    transfer_remark: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    openid: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    user_name: str | None = None  # encrypted for the platform


class BatchBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v3/transfer/batches."""

    appid: str
    out_batch_no: OutBillNo
    batch_name: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    batch_remark: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    total_amount: Fen
    total_num: Annotated[int, msgspec.Meta(ge=1, le=1_000)]
    transfer_detail_list: Annotated[list[BatchDetail], msgspec.Meta(min_length=1, max_length=1_000)]
    transfer_scene_id: str = ""
    notify_url: NotifyUrl | None = None
