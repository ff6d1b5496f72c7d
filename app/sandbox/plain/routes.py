"""The doors of the small protocol."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec
from aiohttp import web

from app.kernel.clock import unix_ms
from app.kernel.errors import Untrusted
from app.payments.provider import RefundStatus
from app.payments.providers.sandbox_wire import (
    NOT_FOUND_CODE,
    CreatePayment,
    CreateRefund,
    ErrorMessage,
    Keys,
    Purpose,
    Signed,
    UnreadableMessage,
    read_message,
    sign,
    verify,
)
from app.sandbox.book import Refused, digest
from app.sandbox.desk import Desk
from app.sandbox.json_replies import json_reply
from app.sandbox.lost import cut_off
from app.sandbox.numbers import refund_number_of
from app.sandbox.plain.messages import tell_payment, tell_refund
from app.sandbox.records import Call, Payment, Refund, Wire

Told: TypeAlias = tuple[int, msgspec.Struct]

_REFUSALS: Final = {
    Refused.NOT_FOUND: (404, NOT_FOUND_CODE),
    Refused.NUMBER_USED: (403, "NUMBER_USED"),
    Refused.CURRENCY_UNKNOWN: (400, "CURRENCY_UNKNOWN"),
    Refused.EXPIRED: (400, "EXPIRED"),
    Refused.FULL: (503, "FULL"),
    Refused.ALREADY_PAID: (409, "ALREADY_PAID"),
    Refused.NOT_PAID: (403, "REFUND_EXCEEDS_PAYMENT"),
    Refused.EXCEEDS_PAYMENT: (403, "REFUND_EXCEEDS_PAYMENT"),
    Refused.NOT_ENOUGH: (403, "NOT_ENOUGH"),
}


class PlainRoutes:
    """Handlers for merchants who share a secret with the gateway."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._settings = desk.settings
        self._keys = Keys(desk.settings.keys)

    def add_to(self, app: web.Application) -> None:
        """Mount every route."""
        router = app.router
        router.add_post("/v1/payments", self._signed(self._create, Call.CREATE))
        router.add_get("/v1/payments/{number}", self._signed(self._query, Call.QUERY))
        router.add_post("/v1/payments/{number}/close", self._signed(self._close, Call.CLOSE))
        router.add_post("/v1/refunds", self._signed(self._refund, Call.REFUND))
        refunds = "/v1/refunds/{number}"
        router.add_get(refunds, self._signed(self._query_refund, Call.QUERY_REFUND))

    def _signed(
        self, answer: Callable[[web.Request, bytes], tuple[str, Told]], call: Call
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Verify the request, and sign the answer with the request's nonce."""

        async def handle(request: web.Request) -> web.Response:
            raw = await request.read()
            path = request.rel_url.raw_path
            asked = Signed(Purpose.REQUEST, request.method, path, raw)
            now_seconds = self._desk.book.now_ms() // 1000
            try:
                nonce = verify(self._keys, asked, request.headers, now_seconds)
            except Untrusted as error:
                # Like the real ones: whoever cannot sign gets no signature either.
                return json_reply(401, ErrorMessage(code="SIGN_ERROR", message=str(error)))
            number, (status, message) = answer(request, raw)
            if self._desk.scripts.loses_answer(number, call):
                return cut_off(request)
            body = msgspec.json.encode(message)
            told = Signed(Purpose.RESPONSE, str(status), path, body)
            headers = sign(self._keys, told, now_seconds, nonce)
            headers["Content-Type"] = "application/json"
            return web.Response(status=status, body=body, headers=headers)

        return handle

    def _create(self, _request: web.Request, raw: bytes) -> tuple[str, Told]:
        try:
            wish = read_message(raw, CreatePayment)
        except UnreadableMessage as error:
            return "", _unreadable(error)
        if (wish.merchant_id, wish.app_id) != (self._settings.merchant_id, self._settings.app_id):
            return wish.number, (403, ErrorMessage(code="ACCOUNT_MISMATCH"))
        return wish.number, self._tell(self._desk.book.create(self._payment(wish)), 201)

    def _payment(self, wish: CreatePayment) -> Payment:
        return Payment(
            wire=Wire.PLAIN,
            number=wish.number,
            merchant_id=wish.merchant_id,
            app_id=wish.app_id,
            product=wish.product,
            amount_minor=wish.amount_minor,
            currency=wish.currency,
            description=wish.description,
            content=digest(wish),
            created_at_ms=self._desk.book.now_ms(),
            expires_at_ms=unix_ms(wish.expires_at),
            callback_url=wish.callback_url,
            return_url=wish.return_url,
        )

    def _query(self, request: web.Request, _raw: bytes) -> tuple[str, Told]:
        number = request.match_info["number"]
        return number, self._tell(self._own(number), 200)

    def _close(self, request: web.Request, _raw: bytes) -> tuple[str, Told]:
        number = request.match_info["number"]
        own = self._own(number)
        found = own if isinstance(own, Refused) else self._desk.book.close(number)
        return number, self._tell(found, 200)

    def _own(self, number: str) -> Payment | Refused:
        found = self._desk.book.payment(number)
        is_own = isinstance(found, Payment) and found.wire is Wire.PLAIN
        return found if is_own else Refused.NOT_FOUND

    def _refund(self, _request: web.Request, raw: bytes) -> tuple[str, Told]:
        try:
            wish = read_message(raw, CreateRefund)
        except UnreadableMessage as error:
            return "", _unreadable(error)
        if wish.merchant_id != self._settings.merchant_id:
            return wish.payment_number, (403, ErrorMessage(code="ACCOUNT_MISMATCH"))
        refund = self._desk.refund(self._refund_of(wish), self._settings.refund_after_ms)
        return wish.payment_number, self._tell(refund, 202)

    def _refund_of(self, wish: CreateRefund) -> Refund:
        return Refund(
            wire=Wire.PLAIN,
            number=wish.number,
            payment_number=wish.payment_number,
            merchant_id=wish.merchant_id,
            amount_minor=wish.amount_minor,
            currency=wish.currency,
            reason=wish.reason,
            content=digest(wish),
            callback_url=wish.callback_url,
            provider_number=refund_number_of(Wire.PLAIN, wish.number),
            created_at_ms=self._desk.book.now_ms(),
            ready_at_ms=None,
            ends_as=RefundStatus.SUCCEEDED,
        )

    def _query_refund(self, request: web.Request, _raw: bytes) -> tuple[str, Told]:
        refund = self._desk.book.refund_by_number(request.match_info["number"])
        number = "" if isinstance(refund, Refused) else refund.payment_number
        return number, self._tell(refund, 200)

    def _tell(self, found: Payment | Refund | Refused, status: int) -> Told:
        match found:
            case Payment():
                return status, tell_payment(found, self._desk.page_of(found.number))
            case Refund():
                return status, tell_refund(found, self._desk.book.now_ms())
            case Refused():
                refused, code = _REFUSALS[found]
                return refused, ErrorMessage(code=code)


def _unreadable(error: UnreadableMessage) -> Told:
    return 400, ErrorMessage(code="PARAM_ERROR", message=str(error)[:200])
