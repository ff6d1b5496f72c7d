"""
What one call to Alipay came to, by the words of its signed answer; pure.

`code` says how the gateway fared, `sub_code` how the business did. What is not in
the table of its method is UNKNOWN and an alarm: a new word must never end a
payment or a refund.

    10000            done                       CONFIRMED
    10003            waiting for the payer      PENDING
    20000            the gateway lost its way   UNKNOWN
    20001, 4000n     refused by the gateway     REJECTED (but a limit on calls is UNKNOWN)
    40004            by `sub_code`, below

Source:
    docs/PAYMENTS.md §2.2, §2.3 and §4.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from app.payments.provider import Outcome


class Method(StrEnum):
    """What the gateway is asked."""

    PAGE_PAY = "alipay.trade.page.pay"
    WAP_PAY = "alipay.trade.wap.pay"
    APP_PAY = "alipay.trade.app.pay"
    PRECREATE = "alipay.trade.precreate"
    QUERY = "alipay.trade.query"
    CLOSE = "alipay.trade.close"
    CANCEL = "alipay.trade.cancel"
    REFUND = "alipay.trade.refund"
    REFUND_QUERY = "alipay.trade.fastpay.refund.query"
    BILL = "alipay.data.dataservice.bill.downloadurl.query"
    TRANSFER = "alipay.fund.trans.uni.transfer"
    TRANSFER_QUERY = "alipay.fund.trans.common.query"
    CERTIFICATE = "alipay.open.app.alipaycert.download"


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer begins with; `msg` and `sub_msg` are for people."""

    code: str
    sub_code: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """An outcome, the word it was read from, and whether somebody must look."""

    outcome: Outcome
    code: str
    is_unmapped: bool = False
    concerns_account: bool = False  # of REJECTED: of whoever asked, not of what was asked


NOT_FOUND: Final = frozenset({"TRADE_NOT_EXIST", "ORDER_NOT_EXIST"})
NO_BILL: Final = frozenset({"NO_BILL_DATA", "BILL_NOT_EXIST"})

# Refusals that hold for every business method.
_REFUSED_ALWAYS: Final = frozenset(
    {"INVALID_PARAMETER", "ACCESS_FORBIDDEN", "PARTNER_ERROR", "EXIST_FORBIDDEN_WORD"}
)
# Neither done nor refused for good: repeat with the same number, or ask.
_UNCLEAR_ALWAYS: Final = frozenset({"SYSTEM_ERROR", "UNKNOW_ERROR", "UNKNOWN_ERROR"})

_REFUSED: Final[Mapping[Method, frozenset[str]]] = {
    Method.PRECREATE: frozenset(
        {
            "APPLY_PC_MERCHANT_CODE_ERROR", "BEYOND_PAY_RESTRICTION",
            "BEYOND_PER_RECEIPT_RESTRICTION", "BUYER_SELLER_EQUAL",
            "BUYER_ENABLE_STATUS_FORBID", "ERROR_BUYER_CERTIFY_LEVEL_LIMIT",
            "INVALID_STORE_ID", "MERCHANT_AGREEMENT_INVALID", "MERCHANT_AGREEMENT_NOT_EXIST",
            "NOW_TIME_AFTER_EXPIRE_TIME_ERROR", "SELLER_BEEN_BLOCKED", "SELLER_NOT_EXIST",
            "SUB_MERCHANT_CREATE_FAIL", "TOTAL_FEE_EXCEED", "TRADE_HAS_CLOSE",
        }
    ),
    Method.QUERY: NOT_FOUND,
    Method.REFUND_QUERY: NOT_FOUND,
    Method.TRANSFER_QUERY: NOT_FOUND,
    Method.REFUND: frozenset(
        {
            "BUYER_ERROR", "BUYER_NOT_EXIST", "CUSTOMER_VALIDATE_ERROR",
            "DISCORDANT_REPEAT_REQUEST", "REASON_TRADE_BEEN_FREEZEN",
            "REASON_TRADE_REFUND_FEE_ERR", "REFUND_AMT_NOT_EQUAL_TOTAL", "REFUND_FEE_ERROR",
            "SELLER_BALANCE_NOT_ENOUGH", "TRADE_HAS_CLOSE", "TRADE_HAS_FINISHED",
            "TRADE_NOT_ALLOW_REFUND", "TRADE_NOT_EXIST", "TRADE_STATUS_ERROR",
        }
    ),
    Method.BILL: NO_BILL,
    Method.TRANSFER: frozenset(
        {
            "BLOCK_USER_FORBBIDEN_RECIEVE", "EXCEED_LIMIT_DM_AMOUNT", "EXCEED_LIMIT_DM_MAX_AMOUNT",
            "EXCEED_LIMIT_ENT_DM_AMOUNT", "EXCEED_LIMIT_PERSONAL_SM_AMOUNT",
            "EXCEED_LIMIT_SM_AMOUNT", "EXCEED_LIMIT_SM_MIN_AMOUNT", "ID_CARD_EXPIRED",
            "IDENTITY_FUND_RELATION_NOT_FOUND", "ILLEGAL_OPERATION", "INVALID_PAYER_ACCOUNT",
            "NO_ACCESS_BY_BLACK_PROP", "NO_ORDER_PERMISSION", "PAYCARD_UNABLE_PAYMENT",
            "PAYEE_ACC_OCUPIED", "PAYEE_ACCOUNT_NOT_EXSIT", "PAYEE_ACCOUNT_STATUS_ERROR",
            "PAYEE_CERT_INFO_ERROR", "PAYEE_NOT_EXIST", "PAYEE_USER_INFO_ERROR",
            "PAYEE_USERINFO_STATUS_ERROR", "PAYER_BALANCE_NOT_ENOUGH", "PAYER_CERT_EXPIRED",
            "PAYER_PERMLIMIT_CHECK_FAILURE", "PAYER_STATUS_ERROR", "PAYMENT_INFO_INCONSISTENCY",
            "PERMIT_CHECK_PERM_LIMITED", "PRODUCT_NOT_SIGN", "REMARK_HAS_SENSITIVE_WORD",
            "SECURITY_CHECK_FAILED", "SIGN_INVALID", "SIGN_NO_PERMISSION",
            "SIGN_QUERY_APP_INFO_ERROR", "TRUSTEESHIP_ACCOUNT_NOT_EXIST",
            "USER_AGREEMENT_VERIFY_FAIL",
        }
    ),
}  # fmt: skip

# Signed, true, and no end of anything: what became of the payment is for a query
# to tell. A trade that does not exist *yet* is a code that nobody has scanned.
_UNCLEAR: Final[Mapping[Method, frozenset[str]]] = {
    Method.PRECREATE: frozenset({"TRADE_HAS_SUCCESS", "CONTEXT_INCONSISTENT"}),
    Method.CLOSE: frozenset(
        {
            "TRADE_NOT_EXIST", "REASON_TRADE_STATUS_INVALID", "REASON_ILLEGAL_STATUS",
            "TRADE_STATUS_ERROR", "TRADE_HAS_CLOSE", "TRADE_HAS_FINISHED", "TRADE_HAS_SUCCESS",
        }
    ),
    Method.CANCEL: frozenset(
        {
            "TRADE_NOT_EXIST", "TRADE_HAS_FINISHED", "REASON_TRADE_STATUS_INVALID",
            "REASON_ILLEGAL_STATUS", "SELLER_BALANCE_NOT_ENOUGH", "CANCEL_NOT_ALLOWED",
        }
    ),
    Method.TRANSFER: frozenset({"REQUEST_PROCESSING", "RESOURCE_LIMIT_EXCEED"}),
}  # fmt: skip

# Of whoever asked: no such app, no right, no contract, shut, or over a limit of its own.
_ACCOUNT: Final = frozenset(
    {
        "ACCESS_FORBIDDEN", "BEYOND_PAY_RESTRICTION", "BEYOND_PER_RECEIPT_RESTRICTION",
        "INVALID_APP_ID", "INVALID_SIGNATURE", "MERCHANT_AGREEMENT_INVALID",
        "MERCHANT_AGREEMENT_NOT_EXIST", "PARTNER_ERROR", "SELLER_BEEN_BLOCKED",
        "SELLER_NOT_EXIST", "SUB_MERCHANT_CREATE_FAIL",
    }
)  # fmt: skip
# Authorisation and permissions, whatever the business word.
_ACCOUNT_CODES: Final = frozenset({"20001", "40006"})


def judge(method: Method, head: AnswerHead) -> Judgement:
    """Say what a *signed* answer means; an unsigned one means nothing."""
    told = f"{head.code}/{head.sub_code}" if head.sub_code else head.code
    match head.code:
        case "10000":
            return Judgement(Outcome.CONFIRMED, "")
        case "10003":
            return Judgement(Outcome.PENDING, told)
        case "20000" | "40005":  # a limit on calls: not looked at, and may be repeated
            return Judgement(Outcome.UNKNOWN, told)
        case "20001" | "40001" | "40002" | "40003" | "40006":
            is_clear = business_word(head) not in _UNCLEAR_ALWAYS
            return _rejected(head, told) if is_clear else Judgement(Outcome.UNKNOWN, told)
        case "40004":
            return _judge_refusal(method, head, told)
        case _:
            return Judgement(Outcome.UNKNOWN, told, is_unmapped=True)


def _judge_refusal(method: Method, head: AnswerHead, told: str) -> Judgement:
    word = business_word(head)
    if word in _UNCLEAR_ALWAYS or word in _UNCLEAR.get(method, ()):
        return Judgement(Outcome.UNKNOWN, told)
    if word in _REFUSED_ALWAYS or word in _REFUSED.get(method, ()):
        return _rejected(head, told)
    return Judgement(Outcome.UNKNOWN, told, is_unmapped=True)


def _rejected(head: AnswerHead, told: str) -> Judgement:
    of_account = head.code in _ACCOUNT_CODES or business_word(head) in _ACCOUNT
    return Judgement(Outcome.REJECTED, told, concerns_account=of_account)


def business_word(head: AnswerHead) -> str:
    """Return the last part of a sub-code, in capitals: prefixes (`ACQ.`, `isp.`) vary."""
    word = (head.sub_code or "").rpartition(".")[2]
    return word.upper().replace("-", "_")
