"""
The one way into WeChat Pay: who signed comes in, and what goes out is signed.

Like the real platform it signs nothing for whoever it could not recognise, and
everything else, refusals too.

Source:
    docs/PAYMENTS.md §1.2, §1.3 and §1.9.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from app.sandbox.book import Refused
from app.sandbox.desk import Desk
from app.sandbox.lost import cut_off
from app.sandbox.records import Call
from app.sandbox.wechatpay.merchants import KeyKind, Merchant
from app.sandbox.wechatpay.signing import (
    is_signed_by,
    is_timely,
    platform_headers,
    read_authorization,
)

Body = TypeVar("Body", bound=msgspec.Struct)

REFUSALS: Final[Mapping[Refused, tuple[int, str]]] = {
    Refused.NOT_FOUND: (404, "RESOURCE_NOT_EXISTS"),
    Refused.NUMBER_USED: (400, "INVALID_REQUEST"),
    Refused.CURRENCY_UNKNOWN: (400, "PARAM_ERROR"),
    Refused.EXPIRED: (400, "PARAM_ERROR"),
    Refused.FULL: (503, "SERVICE_UNAVAILABLE"),
    Refused.ALREADY_PAID: (400, "INVALID_REQUEST"),
    Refused.NOT_PAID: (400, "INVALID_REQUEST"),
    Refused.EXCEEDS_PAYMENT: (400, "INVALID_REQUEST"),
    Refused.NOT_ENOUGH: (403, "NOT_ENOUGH"),
}


class WechatpayError(Exception):
    """A refusal in the platform's words; `status` goes with `code`."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        self.status = status
        self.code = code
        self.message = message or code
        super().__init__(self.message)


@dataclass(frozen=True, slots=True)
class Question:
    """A request whose merchant is known."""

    merchant: Merchant
    path: Mapping[str, str]
    query: Mapping[str, str]
    raw: bytes

    def body(self, kind: type[Body]) -> Body:
        """
        Read the body.

        Raises:
            WechatpayError: PARAM_ERROR.
        """
        try:
            return msgspec.json.decode(self.raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WechatpayError(400, "PARAM_ERROR", str(error)[:256]) from error


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `number` is whose script may lose it, `raw` stands instead of a document."""

    number: str
    document: Mapping[str, Any] | None = None
    status: int = 200
    raw: bytes | None = None


Answer = Callable[[Question], Reply]


class Door:
    """Recognises merchants, and signs what they are told."""

    def __init__(self, desk: Desk, merchants: Mapping[str, Merchant]) -> None:
        self._desk = desk
        self._merchants = merchants

    def signed(
        self, answer: Answer, call: Call | None = None
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Make a handler of an answer; `call` is what scripts call it."""

        async def handle(request: web.Request) -> web.Response:
            raw = await request.read()
            try:
                merchant = self._recognise(request, raw)
            except WechatpayError as error:
                return _refusal(error)
            question = Question(merchant, request.match_info, request.query, raw)
            try:
                reply = answer(question)
            except WechatpayError as error:
                return self._sign(request, merchant, error.status, _envelope(error))
            if call is not None and self._desk.scripts.loses_answer(reply.number, call):
                return cut_off(request)
            if reply.raw is not None:
                return web.Response(body=reply.raw, content_type="application/octet-stream")
            body = b"" if reply.document is None else msgspec.json.encode(reply.document)
            return self._sign(request, merchant, reply.status, body)

        return handle

    def _recognise(self, request: web.Request, raw: bytes) -> Merchant:
        headers = request.headers
        if "User-Agent" not in headers:
            raise WechatpayError(400, "PARAM_ERROR", "Http头缺少Accept或User-Agent")
        if raw and request.content_type != "application/json":
            raise WechatpayError(415, "PARAM_ERROR", "Content-Type must be application/json")
        told = read_authorization(headers.get("Authorization", ""))
        if told is None:
            raise WechatpayError(401, "SIGN_ERROR", "Http头Authorization值格式错误")
        if not is_timely(told.timestamp, self._desk.book.now_ms() // 1000):
            raise WechatpayError(
                401, "SIGN_ERROR", "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"
            )
        merchant = self._merchants.get(told.mchid)
        target = request.raw_path
        if merchant is None or not is_signed_by(merchant, told, request.method, target, raw):
            raise WechatpayError(401, "SIGN_ERROR", "错误的签名,验签失败")
        return merchant

    def _sign(
        self, request: web.Request, merchant: Merchant, status: int, body: bytes
    ) -> web.Response:
        """Sign with the public key where the request asks for it, else with the certificate."""
        asked = request.headers.get("Wechatpay-Serial")
        by_key = asked == merchant.platform_public_key_id
        kind = KeyKind.PUBLIC_KEY if by_key else KeyKind.CERTIFICATE
        now_seconds = self._desk.book.now_ms() // 1000
        headers = platform_headers(merchant, kind, body, now_seconds)
        if body:
            headers["Content-Type"] = "application/json; charset=utf-8"
        return web.Response(status=status, body=body, headers=headers)


def refuse(refused: Refused, **words: tuple[int, str]) -> WechatpayError:
    """Say no in the platform's words; `words` are this call's own, by the refusal's value."""
    status, code = words.get(refused.value, REFUSALS[refused])
    return WechatpayError(status, code, refused.value)


def _envelope(error: WechatpayError) -> bytes:
    return msgspec.json.encode({"code": error.code, "message": error.message})


def _refusal(error: WechatpayError) -> web.Response:
    return web.Response(status=error.status, body=_envelope(error), content_type="application/json")
