"""
What is so, in Alipay's words.

Source:
    docs/PAYMENTS.md §2.1, §2.3 and §2.4.
"""

import hashlib
import re
from datetime import datetime
from typing import Any, Final

from app.kernel.clock import instant, unix_ms
from app.payments.provider import PayState
from app.sandbox.numbers import BEIJING, payment_number_of
from app.sandbox.records import Payment, TransferStatus

Document = dict[str, Any]

TRADE_STATUSES: Final = {
    PayState.NOT_PAID: "WAIT_BUYER_PAY",
    PayState.PAID: "TRADE_SUCCESS",
    PayState.PARTIAL_REFUND: "TRADE_SUCCESS",
    PayState.REFUNDED: "TRADE_CLOSED",
    PayState.CLOSED: "TRADE_CLOSED",
}
TRANSFER_STATUSES: Final = {
    TransferStatus.PROCESSING: "DEALING",
    TransferStatus.WAITING: "DEALING",
    TransferStatus.SUCCEEDED: "SUCCESS",
    TransferStatus.FAILED: "FAIL",
    TransferStatus.CANCELLED: "CLOSED",
}
_YUAN: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,2}))?", re.ASCII)
_TIME: Final = "%Y-%m-%d %H:%M:%S"


def yuan(minor: int) -> str:
    """Write fen as yuan."""
    sign = "-" if minor < 0 else ""
    whole, rest = divmod(abs(minor), 100)
    return f"{sign}{whole}.{rest:02d}"


def read_yuan(text: str) -> int | None:
    """Read yuan as fen; None for anything but a plain decimal of at most two places."""
    found = _YUAN.fullmatch(text)
    if found is None:
        return None
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))


def beijing_time(at_ms: int) -> str:
    """Write an instant as Alipay does: Beijing's time, without saying so."""
    return instant(at_ms).astimezone(BEIJING).strftime(_TIME)


def read_time(text: str) -> int | None:
    """Read an instant as Unix milliseconds; None when it is none."""
    try:
        return unix_ms(datetime.strptime(text, _TIME).replace(tzinfo=BEIJING))
    except ValueError:
        return None


def trade_number(payment: Payment) -> str:
    """Give a trade its number; it has it before it is paid."""
    number = payment.provider_number
    return number or payment_number_of(payment.wire, payment.number, payment.created_at_ms)


def buyer_of(payment: Payment) -> str:
    """Name the buyer; made up, and the same for the same payment."""
    made_up = int.from_bytes(hashlib.sha256(payment.number.encode()).digest())
    return f"2088{made_up % 10**12:012d}"


def trade(payment: Payment) -> Document:
    """Tell a trade to whoever asks about it."""
    paid = yuan(payment.captured_minor)
    told: Document = {
        "trade_no": trade_number(payment),
        "out_trade_no": payment.number,
        "trade_status": TRADE_STATUSES[payment.state],
        "total_amount": yuan(payment.captured_minor or payment.amount_minor),
        "buyer_logon_id": "san***@example.com",
        "buyer_user_id": buyer_of(payment),
        "buyer_pay_amount": paid,
        "receipt_amount": paid,
        "invoice_amount": paid,
        "point_amount": "0.00",
    }
    if payment.paid_at_ms is not None:
        told["send_pay_date"] = beijing_time(payment.paid_at_ms)
    return told


def trade_notice(payment: Payment, due_at_ms: int) -> dict[str, str]:
    """Tell a trade in a notification; without the sum of its refunds, if it has none."""
    paid = yuan(payment.captured_minor)
    told = {
        "notify_time": beijing_time(due_at_ms),
        "notify_type": "trade_status_sync",
        "app_id": payment.app_id,
        "auth_app_id": payment.app_id,
        "charset": "utf-8",
        "version": "1.0",
        "trade_no": trade_number(payment),
        "out_trade_no": payment.number,
        "seller_id": payment.merchant_id,
        "buyer_id": buyer_of(payment),
        "trade_status": TRADE_STATUSES[payment.state],
        "total_amount": yuan(payment.captured_minor or payment.amount_minor),
        "subject": payment.description,
        "gmt_create": beijing_time(payment.created_at_ms),
    }
    if payment.paid_at_ms is not None:
        told |= {
            "receipt_amount": paid,
            "invoice_amount": paid,
            "buyer_pay_amount": paid,
            "point_amount": "0.00",
            "gmt_payment": beijing_time(payment.paid_at_ms),
            "fund_bill_list": f'[{{"amount":"{paid}","fundChannel":"ALIPAYACCOUNT"}}]',
        }
    if payment.attach:
        told["passback_params"] = payment.attach
    return told
