"""The gateway's doors: the signed API, the testers' control, the two pages."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from aiohttp import web

from app.kernel.clock import Clock
from app.kernel.errors import Untrusted
from app.payments.provider import PayState
from app.payments.providers.sandbox_wire import (
    AmountMinor,
    CreatePayment,
    CreateRefund,
    ErrorMessage,
    Keys,
    Message,
    Purpose,
    Signed,
    UnreadableMessage,
    read_message,
    sign,
    verify,
)
from app.sandbox.delivery import Deliveries
from app.sandbox.gateway import Gateway, Refused
from app.sandbox.pages import CONTENT_SECURITY_POLICY, list_page, payment_page
from app.sandbox.records import Payment, Refund
from app.sandbox.settings import SandboxSettings

Told: TypeAlias = tuple[int, msgspec.Struct]

_LISTED_MAX: Final = 100


class ControlOutcome(StrEnum):
    """What the shopper does."""

    PAY = "pay"
    DECLINE = "decline"
    TIMEOUT = "timeout"  # walks away; the payment stays open until it expires


class ControlCallback(StrEnum):
    """How the merchant hears of it."""

    NOW = "now"
    LATE = "late"
    TWICE = "twice"
    NEVER = "never"
    FORGED = "forged"  # nothing happens here, and a stranger says that it did


class Control(msgspec.Struct, forbid_unknown_fields=True):
    """
    The body of `POST /control/payments/{payment_id}`.

    `amount_minor` other than what was asked for makes a message that lies: it is
    signed, and the gateway's own books say that nobody paid.
    """

    outcome: ControlOutcome
    callback: ControlCallback = ControlCallback.NOW
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] | None = None
    amount_minor: AmountMinor | None = None

    def is_lie(self, payment: Payment) -> bool:
        """Whether the merchant is told something that did not happen."""
        amount_differs = self.amount_minor not in (None, payment.request.amount_minor)
        return self.callback is ControlCallback.FORGED or amount_differs


class GatewayRoutes:
    """Handlers over one gateway."""

    def __init__(
        self, settings: SandboxSettings, gateway: Gateway, deliveries: Deliveries, clock: Clock
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._deliveries = deliveries
        self._clock = clock
        self._keys = Keys(settings.keys)

    def add_to(self, app: web.Application) -> None:
        """Mount every route."""
        app.router.add_post("/v1/payments", self._signed(self._create))
        app.router.add_get("/v1/payments/{number}", self._signed(self._query))
        app.router.add_post("/v1/payments/{number}/close", self._signed(self._close))
        app.router.add_post("/v1/refunds", self._signed(self._refund))
        app.router.add_get("/v1/refunds/{number}", self._signed(self._query_refund))
        app.router.add_post("/control/payments/{number}", self._control)
        app.router.add_get("/pay/{number}", self._show)
        app.router.add_post("/pay/{number}", self._press)
        app.router.add_get("/", self._list)

    def _signed(
        self, answer: Callable[[web.Request, bytes], Told]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Verify the request, and sign the answer with the request's nonce."""

        async def handle(request: web.Request) -> web.Response:
            raw = await request.read()
            path = request.rel_url.raw_path
            asked = Signed(Purpose.REQUEST, request.method, path, raw)
            now_seconds = self._clock.now_ms() // 1000
            try:
                nonce = verify(self._keys, asked, request.headers, now_seconds)
            except Untrusted as error:
                # Like the real ones: whoever cannot sign gets no signature either.
                return _json(401, ErrorMessage(code="SIGN_ERROR", message=str(error)))
            status, message = answer(request, raw)
            body = msgspec.json.encode(message)
            told = Signed(Purpose.RESPONSE, str(status), path, body)
            headers = sign(self._keys, told, now_seconds, nonce)
            headers["Content-Type"] = "application/json"
            return web.Response(status=status, body=body, headers=headers)

        return handle

    def _create(self, _request: web.Request, raw: bytes) -> Told:
        wish = _decode(raw, CreatePayment)
        if isinstance(wish, Refused):
            return _refuse(wish)
        return self._tell(self._gateway.create(wish), 201)

    def _query(self, request: web.Request, _raw: bytes) -> Told:
        return self._tell(self._gateway.payment(request.match_info["number"]), 200)

    def _close(self, request: web.Request, _raw: bytes) -> Told:
        return self._tell(self._gateway.close(request.match_info["number"]), 200)

    def _refund(self, _request: web.Request, raw: bytes) -> Told:
        wish = _decode(raw, CreateRefund)
        if isinstance(wish, Refused):
            return _refuse(wish)
        is_new = isinstance(self._gateway.find_refund(wish.number), Refused)
        refund = self._gateway.refund(wish)
        if is_new and isinstance(refund, Refund):
            self._deliveries.deliver(self._gateway.refund_callback(refund))
        return self._tell(refund, 202)

    def _query_refund(self, request: web.Request, _raw: bytes) -> Told:
        return self._tell(self._gateway.find_refund(request.match_info["number"]), 200)

    def _tell(self, found: Payment | Refund | Refused, status: int) -> Told:
        match found:
            case Payment():
                return status, self._gateway.tell_payment(found)
            case Refund():
                return status, self._gateway.tell_refund(found)
            case Refused():
                return _refuse(found)

    async def _control(self, request: web.Request) -> web.Response:
        wish = _decode(await request.read(), Control)
        if isinstance(wish, Refused):
            return _json(422, ErrorMessage(code="validation_failed", message=wish.code))
        payment = self._gateway.payment(request.match_info["number"])
        if isinstance(payment, Refused):
            return _json(404, ErrorMessage(code="payment_not_found"))
        self._play(payment, wish)
        return _json(202, self._gateway.tell_payment(payment))

    def _play(self, payment: Payment, wish: Control) -> None:
        if wish.outcome is ControlOutcome.TIMEOUT:
            return
        told = self._lie(payment, wish) if wish.is_lie(payment) else self._act(payment.key, wish)
        if isinstance(told, Refused) or wish.callback is ControlCallback.NEVER:
            return
        callback = self._gateway.payment_callback(told, self._delay_ms(wish))
        if wish.callback is ControlCallback.FORGED:
            self._deliveries.forge(callback)
        else:
            copies = 2 if wish.callback is ControlCallback.TWICE else 1
            self._deliveries.deliver(callback, copies)

    def _lie(self, payment: Payment, wish: Control) -> Payment:
        if wish.outcome is ControlOutcome.DECLINE:
            return msgspec.structs.replace(payment, state=PayState.CLOSED)
        return self._gateway.as_paid(payment, wish.amount_minor or payment.request.amount_minor)

    def _act(self, number: str, wish: Control) -> Payment | Refused:
        if wish.outcome is ControlOutcome.PAY:
            return self._gateway.pay(number)
        return self._gateway.close(number)

    def _delay_ms(self, wish: Control) -> int:
        if wish.delay_ms is not None:
            return wish.delay_ms
        late = wish.callback is ControlCallback.LATE
        return self._settings.late_callback_ms if late else 0

    async def _show(self, request: web.Request) -> web.Response:
        payment = self._gateway.payment(request.match_info["number"])
        if isinstance(payment, Refused):
            raise web.HTTPNotFound
        return _html(payment_page(payment))

    async def _press(self, request: web.Request) -> web.Response:
        """Do what the person at the page pressed; only an open payment has buttons."""
        number = request.match_info["number"]
        payment = self._gateway.payment(number)
        if isinstance(payment, Refused):
            raise web.HTTPNotFound
        pressed = (await request.post()).get("press")
        if payment.state is PayState.NOT_PAID and pressed in ("pay", "decline"):
            self._play(payment, Control(outcome=ControlOutcome(str(pressed))))
        return web.Response(status=303, headers={"Location": f"/pay/{number}"})

    async def _list(self, _request: web.Request) -> web.Response:
        return _html(list_page(self._gateway.open_payments(_LISTED_MAX)))


def _decode(raw: bytes, type_: type[Message]) -> Message | Refused:
    try:
        return read_message(raw, type_)
    except UnreadableMessage as error:
        return Refused(400, f"PARAM_ERROR: {error}"[:200])


def _refuse(refused: Refused) -> Told:
    code, _, message = refused.code.partition(": ")
    return refused.status, ErrorMessage(code=code, message=message)


def _json(status: int, message: msgspec.Struct) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(message), content_type="application/json"
    )


def _html(page: str) -> web.Response:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
    return web.Response(text=page, content_type="text/html", headers=headers)
