"""
What Alipay says of a trade and of a refund, in our words; pure.

One status stands for several of ours: TRADE_CLOSED is an unpaid trade that timed
out *or* a paid one that was refunded in full, TRADE_SUCCESS may be refunded in
part. Money that came back and the instant of payment tell them apart; that a
field is there proves nothing, for plain payments carry `refund_fee=0.00`.

Source:
    docs/PAYMENTS.md §2.3 and §4.3.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

import msgspec

from app.payments.provider import (
    AttemptReference,
    MerchantAccount,
    PaySnapshot,
    PayState,
    RefundRequest,
    RefundSnapshot,
    RefundStatus,
)
from app.payments.providers.alipay.wire import CURRENCY, from_beijing, from_yuan

NO_AMOUNT: Final = msgspec.Raw(b"null")

Text = Annotated[str, msgspec.Meta(max_length=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeTold:
    """The four things that decide a trade's state."""

    status: str
    total_minor: int
    refunded_minor: int
    paid_at: datetime | None


def pay_state(told: TradeTold) -> PayState:
    """Judge a trade; a status that we do not know is UNKNOWN and never a failure."""
    match told.status:
        case "WAIT_BUYER_PAY":
            return PayState.NOT_PAID
        case "TRADE_SUCCESS" | "TRADE_FINISHED":
            return _captured_state(told)
        case "TRADE_CLOSED":
            if told.refunded_minor > 0 or told.paid_at is not None:
                return PayState.REFUNDED
            return PayState.CLOSED
        case _:
            return PayState.UNKNOWN


def _captured_state(told: TradeTold) -> PayState:
    if told.refunded_minor == 0:
        return PayState.PAID
    if told.refunded_minor < told.total_minor:
        return PayState.PARTIAL_REFUND
    return PayState.REFUNDED


class TradeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to alipay.trade.query."""

    out_trade_no: Text
    trade_no: Text
    trade_status: Text
    total_amount: msgspec.Raw
    refund_fee: msgspec.Raw = NO_AMOUNT
    send_pay_date: str | None = None


class PrecreateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to alipay.trade.precreate."""

    out_trade_no: Text
    qr_code: Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]


class CloseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to alipay.trade.close."""

    out_trade_no: str | None = None


class CancelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to alipay.trade.cancel: `action` is what it did, if anything."""

    out_trade_no: str | None = None
    retry_flag: str | None = None
    action: str | None = None


class RefundAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to alipay.trade.refund; `refund_fee` is all that ever went back."""

    out_trade_no: Text
    trade_no: Text
    refund_fee: msgspec.Raw
    fund_change: str | None = None


class RefundQueryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to alipay.trade.fastpay.refund.query; empty for a refund that never was."""

    out_trade_no: str | None = None
    trade_no: str | None = None
    out_request_no: str | None = None
    refund_amount: msgspec.Raw = NO_AMOUNT
    refund_status: str | None = None


def read_trade(
    answer: TradeAnswer, attempt: AttemptReference, account: MerchantAccount
) -> PaySnapshot:
    """
    Turn the answer to a query into a snapshot.

    The answer names neither app nor seller: it was asked for, and signed, under
    this account, and tells of this account's trades alone.

    Raises:
        ValueError: it is about another payment, or an amount or an instant is malformed.
    """
    if answer.out_trade_no != attempt.number:
        message = "an answer about another payment"
        raise ValueError(message)
    told = TradeTold(
        status=answer.trade_status,
        total_minor=read_amount(answer.total_amount),
        refunded_minor=read_amount(answer.refund_fee, absent=0),
        paid_at=from_beijing(answer.send_pay_date) if answer.send_pay_date else None,
    )
    return PaySnapshot(
        number=answer.out_trade_no,
        state=pay_state(told),
        merchant_id=account.merchant_id,
        app_id=account.app_id,
        provider_number=answer.trade_no or None,
        amount_minor=told.total_minor,
        currency=CURRENCY,
        paid_at=told.paid_at,
    )


def read_refund(
    answer: RefundAnswer, refund: RefundRequest, account: MerchantAccount
) -> RefundSnapshot | None:
    """
    Turn the answer to a refund into a snapshot.

    Returns:
        None unless `fund_change` is `Y`: then nothing is known, and a query tells.

    Raises:
        ValueError: it is about another payment, or less went back than was asked for.
    """
    if answer.out_trade_no != refund.attempt.number:
        message = "an answer about another payment"
        raise ValueError(message)
    if answer.fund_change != "Y":
        return None
    # Cumulative: it bounds this refund from above and is not its amount.
    if read_amount(answer.refund_fee) < refund.amount_minor:
        message = "less went back than was asked for"
        raise ValueError(message)
    return RefundSnapshot(
        number=refund.number,
        attempt_number=answer.out_trade_no,
        status=RefundStatus.SUCCEEDED,
        merchant_id=account.merchant_id,
        provider_number=answer.trade_no,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
    )


def read_refund_query(
    answer: RefundQueryAnswer, refund: RefundRequest, account: MerchantAccount
) -> RefundSnapshot:
    """
    Turn the answer to a refund query into a snapshot.

    No `refund_status` means that the refund was not received or failed; sending
    it again with the same number is safe.

    Raises:
        ValueError: it is about another refund, or its amount is malformed.
    """
    if answer.out_request_no not in (None, "", refund.number):
        message = "an answer about another refund"
        raise ValueError(message)
    status = _REFUND_STATUS.get(answer.refund_status or "", RefundStatus.UNKNOWN)
    if status is RefundStatus.NOT_FOUND:
        return missing_refund(refund)
    if answer.out_trade_no != refund.attempt.number:
        message = "an answer about another payment"
        raise ValueError(message)
    return RefundSnapshot(
        number=refund.number,
        attempt_number=refund.attempt.number,
        status=status,
        merchant_id=account.merchant_id,
        provider_number=answer.trade_no,
        amount_minor=read_amount(answer.refund_amount, absent=0),
        currency=CURRENCY,
    )


def missing_refund(refund: RefundRequest) -> RefundSnapshot:
    return RefundSnapshot(
        number=refund.number,
        attempt_number=refund.attempt.number,
        status=RefundStatus.NOT_FOUND,
    )


def without_payer(content: bytes) -> bytes:
    """Return a signed content without the fields that say who paid: what is kept of it."""
    try:
        told = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b""
    kept = {
        name: value
        for name, value in told.items()
        if not name.startswith("buyer_") and not name.endswith("open_id")
    }
    return msgspec.json.encode(kept)


def read_amount(raw: msgspec.Raw, absent: int | None = None) -> int:
    """
    Read an amount in yuan from its JSON text, a string or a number.

    The text of a number is read as it stands: it never becomes a float.

    Args:
        raw: the text.
        absent: what null stands for; None when the amount must be there.

    Raises:
        ValueError: it is neither.
    """
    if absent is not None and bytes(raw) == bytes(NO_AMOUNT):
        return absent
    try:
        text = bytes(raw).decode("ascii")
    except UnicodeDecodeError as error:
        message = "an amount is ASCII"
        raise ValueError(message) from error
    return from_yuan(text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text)


_REFUND_STATUS: Final = {
    "REFUND_SUCCESS": RefundStatus.SUCCEEDED,
    "": RefundStatus.NOT_FOUND,
}
