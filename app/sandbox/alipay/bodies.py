"""
What merchants put into `biz_content`, as types.

Source:
    docs/PAYMENTS.md §2.3, §2.5 and §2.6.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec

OutTradeNo: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]{1,64}\Z")]
Subject: TypeAlias = Annotated[
    str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^/=&]*\Z")
]


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """A payment to be opened."""

    out_trade_no: OutTradeNo
    total_amount: str
    subject: Subject
    product_code: str = ""
    time_expire: str | None = None
    timeout_express: str | None = None
    qr_code_timeout_express: str | None = None
    passback_params: Annotated[str, msgspec.Meta(max_length=512)] = ""


class TradeName(msgspec.Struct, frozen=True, kw_only=True):
    """A trade named by one of its two numbers."""

    out_trade_no: str | None = None
    trade_no: str | None = None


class RefundWish(msgspec.Struct, frozen=True, kw_only=True):
    """Money to be sent back."""

    refund_amount: str
    out_trade_no: str | None = None
    trade_no: str | None = None
    out_request_no: OutTradeNo | None = None
    refund_reason: Annotated[str, msgspec.Meta(max_length=256)] = ""


class RefundName(msgspec.Struct, frozen=True, kw_only=True):
    """A refund and its trade."""

    out_request_no: OutTradeNo
    out_trade_no: str | None = None
    trade_no: str | None = None


class BillWish(msgspec.Struct, frozen=True, kw_only=True):
    """Which bill of which day."""

    bill_type: Literal["trade", "signcustomer"]
    bill_date: str


class Payee(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets the money."""

    identity: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    identity_type: Literal["ALIPAY_USER_ID", "ALIPAY_LOGON_ID", "ALIPAY_OPEN_ID"]
    name: str | None = None


class TransferWish(msgspec.Struct, frozen=True, kw_only=True):
    """Money to be sent to somebody."""

    out_biz_no: OutTradeNo
    trans_amount: str
    product_code: Literal["TRANS_ACCOUNT_NO_PWD"]
    biz_scene: Literal["DIRECT_TRANSFER"]
    payee_info: Payee
    order_title: str = ""
    remark: str = ""


class TransferName(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer named by one of its numbers."""

    out_biz_no: str | None = None
    order_id: str | None = None
    pay_fund_order_id: str | None = None
    product_code: str = ""
    biz_scene: str = ""


class CertificateName(msgspec.Struct, frozen=True, kw_only=True):
    """Which of Alipay's certificates."""

    alipay_cert_sn: str
