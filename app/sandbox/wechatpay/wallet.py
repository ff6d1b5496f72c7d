"""
The shopper's side of WeChat Pay: what an app or a page hands to the wallet.

Nobody of the platform's speaks HTTP here; it stands for the wallet's own library,
so that the signatures made for it are proved too.

Source:
    docs/PAYMENTS.md §1.6, the client pay signatures.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from app.payments.provider import Product
from app.payments.providers.sandbox_wire import ErrorMessage
from app.sandbox.book import Refused
from app.sandbox.desk import Desk
from app.sandbox.json_replies import json_reply
from app.sandbox.records import Payment
from app.sandbox.wechatpay.merchants import Merchant
from app.sandbox.wechatpay.payments import PREPAY_PREFIX
from app.sandbox.wechatpay.signing import is_signed_over

_PACKAGE: Final = "prepay_id="


class JsapiParams(msgspec.Struct, frozen=True):
    """What a page in the wallet's browser hands over."""

    appid: str = msgspec.field(name="appId")
    timestamp: str = msgspec.field(name="timeStamp")
    nonce: str = msgspec.field(name="nonceStr")
    package: str
    sign_type: str = msgspec.field(name="signType")
    signature: str = msgspec.field(name="paySign")

    @property
    def prepay_id(self) -> str:
        return self.package.removeprefix(_PACKAGE)

    def is_signed_for(self, merchant: Merchant) -> bool:
        lines = (self.appid, self.timestamp, self.nonce, self.package)
        return (
            self.sign_type == "RSA"
            and self.package.startswith(_PACKAGE)
            and is_signed_over(merchant, self.signature, *lines)
        )


class AppParams(msgspec.Struct, frozen=True):
    """What an app hands over."""

    appid: str
    partnerid: str
    prepay_id: str = msgspec.field(name="prepayid")
    package: str
    nonce: str = msgspec.field(name="noncestr")
    timestamp: str
    signature: str = msgspec.field(name="sign")

    def is_signed_for(self, merchant: Merchant) -> bool:
        lines = (self.appid, self.timestamp, self.nonce, self.prepay_id)
        return (
            self.package == "Sign=WXPay"
            and self.partnerid == merchant.mchid
            and is_signed_over(merchant, self.signature, *lines)
        )


class WalletRoutes:
    """The handler of /wallet/wechatpay."""

    def __init__(self, desk: Desk, merchants: Mapping[str, Merchant]) -> None:
        self._desk = desk
        self._merchants = merchants

    def add_to(self, app: web.Application) -> None:
        """Mount the route."""
        app.router.add_post("/wallet/wechatpay", self._invoke)

    async def _invoke(self, request: web.Request) -> web.Response:
        """Open the page of the payment whose parameters are rightly signed."""
        try:
            params = _read_params(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return json_reply(422, ErrorMessage(code="validation_failed", message=str(error)))
        payment = self._desk.book.payment(params.prepay_id.removeprefix(PREPAY_PREFIX))
        if isinstance(payment, Refused) or not self._may_pay(payment, params):
            return json_reply(403, ErrorMessage(code="SIGN_ERROR"))
        page = self._desk.page_of(payment.number)
        return web.Response(status=303, headers={"Location": page})

    def _may_pay(self, payment: Payment, params: JsapiParams | AppParams) -> bool:
        merchant = self._merchants.get(payment.merchant_id)
        product = Product.APP if isinstance(params, AppParams) else Product.JSAPI
        return (
            merchant is not None
            and (payment.product, payment.app_id) == (product, params.appid)
            and params.is_signed_for(merchant)
        )


def _read_params(raw: bytes) -> JsapiParams | AppParams:
    told = msgspec.json.decode(raw)
    if isinstance(told, dict) and "prepayid" in told:
        return msgspec.convert(told, AppParams)
    return msgspec.convert(told, JsapiParams)
