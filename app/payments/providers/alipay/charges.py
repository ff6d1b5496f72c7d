"""
How each product is asked for at Alipay; pure.

Source:
    docs/PAYMENTS.md §2.3.
"""

from datetime import datetime, timedelta
from typing import Final

from app.payments.provider import ChargeRequest, Product
from app.payments.providers.alipay.outcomes import Method
from app.payments.providers.alipay.wire import AMOUNT_MINOR_MAX, CURRENCY, to_beijing, to_yuan

SUBJECT_LENGTH_MAX: Final = 256

METHODS: Final = {
    Product.PAGE: Method.PAGE_PAY,
    Product.WAP: Method.WAP_PAY,
    Product.H5: Method.WAP_PAY,
    Product.APP: Method.APP_PAY,
    Product.QR: Method.PRECREATE,
    Product.NATIVE: Method.PRECREATE,
}
_PRODUCT_CODES: Final = {
    Method.PAGE_PAY: "FAST_INSTANT_TRADE_PAY",
    Method.WAP_PAY: "QUICK_WAP_WAY",
    Method.APP_PAY: "QUICK_MSECURITY_PAY",
    Method.PRECREATE: "QR_CODE_OFFLINE",
}
_NO_SUBJECT: Final = str.maketrans("/=&", "   ")  # what a subject may not hold


def charge_mistake(charge: ChargeRequest) -> str:
    """Say what Alipay can never take: one word, or nothing."""
    if charge.product not in METHODS:
        return "no_such_product"
    return amount_mistake(charge.amount_minor, charge.currency)


def amount_mistake(amount_minor: int, currency: str) -> str:
    """Say why an amount can never be taken: one word, or nothing."""
    if currency != CURRENCY:
        return "currency_not_taken"
    return "" if 1 <= amount_minor <= AMOUNT_MINOR_MAX else "amount_out_of_bounds"


def charge_content(method: Method, charge: ChargeRequest, now: datetime) -> dict[str, object]:
    """
    Write what a payment is opened with.

    A code to be scanned lives by minutes besides: nobody can close it before it
    was scanned, so it must not outlive the units that are held for it.
    """
    subject = " ".join(charge.description.translate(_NO_SUBJECT).split())[:SUBJECT_LENGTH_MAX]
    content: dict[str, object] = {
        "out_trade_no": charge.number,
        "total_amount": to_yuan(charge.amount_minor),
        "subject": subject or charge.number,
        "product_code": _PRODUCT_CODES[method],
        "time_expire": to_beijing(charge.expires_at),
    }
    minutes = (charge.expires_at - now) // timedelta(minutes=1)
    if method is Method.PRECREATE and minutes >= 1:
        content["qr_code_timeout_express"] = f"{minutes}m"
    return content
