"""
What is sent to open, close and refund a payment, and what the wallet is handed.

Pure: requests as bytes, answers as actions. A charge that WeChat Pay's rules can
never allow is refused here and not sent.

Source:
    docs/PAYMENTS.md §1.6, §1.7 and §1.8.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Final
from urllib.parse import quote

import msgspec

from app.payments.provider import (
    Action,
    AttemptReference,
    ChargeRequest,
    ParamsAction,
    Product,
    QrAction,
    RedirectAction,
    RefundRequest,
)
from app.payments.providers.wechatpay.messages import CodeUrl, H5Url, PrepayId, read_document
from app.payments.providers.wechatpay.settings import PRODUCTS, WechatpayAccount
from app.payments.providers.wechatpay.signing import Merchant, Request, invocation_text, sign
from app.payments.providers.wechatpay.snapshots import CURRENCY

BEIJING: Final = timezone(timedelta(hours=8))
DESCRIPTION_MAX: Final = 127
REASON_MAX: Final = 80
_ASTRAL: Final = 0x10000  # from here on UTF-8 takes four bytes, which are refused

_PATHS: Final[Mapping[Product, str]] = {
    Product.NATIVE: "/v3/pay/transactions/native",
    Product.QR: "/v3/pay/transactions/native",
    Product.JSAPI: "/v3/pay/transactions/jsapi",
    Product.H5: "/v3/pay/transactions/h5",
    Product.APP: "/v3/pay/transactions/app",
}


def charge_mistake(charge: ChargeRequest) -> str | None:
    """Say why a charge can never be opened; None: it may be sent."""
    if charge.product not in PRODUCTS:
        return "product_not_offered"
    if charge.currency != CURRENCY or charge.amount_minor < 1:
        return "currency_or_amount"
    if charge.product is Product.JSAPI and not charge.payer_id:
        return "payer_missing"
    if charge.product is Product.H5 and not charge.client_address:
        return "client_address_missing"
    return None


def charge_request(account: WechatpayAccount, charge: ChargeRequest, callback_url: str) -> Request:
    """Write the request that opens a payment; the same charge gives the same bytes."""
    body: dict[str, object] = {
        "appid": account.appid_of(charge.product),
        "mchid": account.mchid,
        "description": plain_text(charge.description, DESCRIPTION_MAX) or charge.number,
        "out_trade_no": charge.number,
        "time_expire": beijing_time(charge.expires_at),
        "notify_url": callback_url,
        "amount": {"total": charge.amount_minor, "currency": charge.currency},
    }
    if charge.product is Product.JSAPI:
        body["payer"] = {"openid": charge.payer_id}
    if charge.product is Product.H5:
        body["scene_info"] = {
            "payer_client_ip": charge.client_address,
            "h5_info": {"type": "Wap"},
        }
    return Request("POST", _PATHS[charge.product], msgspec.json.encode(body))


def read_action(
    account: WechatpayAccount, charge: ChargeRequest, answer: bytes, timestamp: str, nonce: str
) -> Action:
    """
    Turn the answer to a charge into what the shopper does next.

    Args:
        account: signs what the wallet is handed.
        charge: as it was sent.
        answer: signed by WeChat Pay.
        timestamp: Unix seconds, now.
        nonce: at most 32 characters, never used before.

    Raises:
        MalformedMessage: the answer lacks what it should hold.
    """
    match charge.product:
        case Product.JSAPI:
            prepay_id = read_document(answer, PrepayId).prepay_id
            app_id = account.appid_of(Product.JSAPI)
            return jsapi_action(account.merchant, app_id, prepay_id, timestamp, nonce)
        case Product.APP:
            prepay_id = read_document(answer, PrepayId).prepay_id
            app_id = account.appid_of(Product.APP)
            return app_action(account.merchant, app_id, prepay_id, timestamp, nonce)
        case Product.H5:
            return _h5_action(read_document(answer, H5Url).h5_url, charge.return_url)
        case _:
            code = read_document(answer, CodeUrl).code_url
            return QrAction(text=code, page=code)


def jsapi_action(
    merchant: Merchant, app_id: str, prepay_id: str, timestamp: str, nonce: str
) -> ParamsAction:
    """Sign what a page inside the wallet hands to WeixinJSBridge."""
    package = f"prepay_id={prepay_id}"
    return ParamsAction(
        {
            "appId": app_id,
            "timeStamp": timestamp,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": sign(merchant.key, invocation_text(app_id, timestamp, nonce, package)),
        }
    )


def app_action(
    merchant: Merchant, app_id: str, prepay_id: str, timestamp: str, nonce: str
) -> ParamsAction:
    """Sign what an app hands to the wallet's library; it signs the bare prepay id."""
    return ParamsAction(
        {
            "appid": app_id,
            "partnerid": merchant.mchid,
            "prepayid": prepay_id,
            "package": "Sign=WXPay",
            "noncestr": nonce,
            "timestamp": timestamp,
            "sign": sign(merchant.key, invocation_text(app_id, timestamp, nonce, prepay_id)),
        }
    )


def query_request(account: WechatpayAccount, attempt: AttemptReference) -> Request:
    return Request("GET", f"{_number_path(attempt)}?mchid={account.mchid}")


def close_request(account: WechatpayAccount, attempt: AttemptReference) -> Request:
    body = msgspec.json.encode({"mchid": account.mchid})
    return Request("POST", f"{_number_path(attempt)}/close", body)


def refund_request(refund: RefundRequest, callback_url: str) -> Request:
    """Write the request that sends money back; the same refund gives the same bytes."""
    body = {
        "out_trade_no": refund.attempt.number,
        "out_refund_no": refund.number,
        "reason": plain_text(refund.reason, REASON_MAX) or refund.number,
        "notify_url": callback_url,
        "amount": {
            "refund": refund.amount_minor,
            "total": refund.attempt.amount_minor,
            "currency": refund.currency,
        },
    }
    return Request("POST", "/v3/refund/domestic/refunds", msgspec.json.encode(body))


def query_refund_request(refund: RefundRequest) -> Request:
    return Request("GET", f"/v3/refund/domestic/refunds/{quote(refund.number, safe='')}")


def plain_text(text: str, length_max: int) -> str:
    """Cut a text to what WeChat Pay takes: no control characters, none of four bytes."""
    kept = "".join(
        character for character in text if character.isprintable() and ord(character) < _ASTRAL
    )
    return kept[:length_max].strip()


def beijing_time(moment: datetime) -> str:
    """Write an instant as RFC 3339 in Beijing's time, to the second, rounded down."""
    return moment.astimezone(BEIJING).isoformat(timespec="seconds")


def _number_path(attempt: AttemptReference) -> str:
    return f"/v3/pay/transactions/out-trade-no/{quote(attempt.number, safe='')}"


def _h5_action(h5_url: str, return_url: str | None) -> RedirectAction:
    """Append where to come back to: the only thing that may be appended."""
    if not return_url:
        return RedirectAction(h5_url)
    return RedirectAction(f"{h5_url}&redirect_url={quote(return_url, safe='')}")
