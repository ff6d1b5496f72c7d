"""
The provider `sandbox`: real HTTP and real signatures, money of the imagination.

Its gateway is `app.sandbox`. What a call came to is decided in this order: no
connection means not sent; a timeout or a lost connection, a 5xx and anything
that is not signed mean unknown; only then the signed answer is read.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from app.kernel.clock import Clock
from app.kernel.errors import BadSignature
from app.payments.provider import (
    Action,
    AttemptReference,
    ChargeRequest,
    Event,
    HttpReply,
    MalformedMessage,
    MerchantAccount,
    Outcome,
    PaySnapshot,
    PayState,
    Product,
    QrAction,
    RedirectAction,
    RefundRequest,
    RefundSnapshot,
    RefundStatus,
    Refusal,
    Result,
    StaleMessage,
    Verified,
)
from app.payments.providers.sandbox_wire import (
    KEY_HEADER,
    NONCE_HEADER,
    NOT_FOUND_CODE,
    TIMESTAMP_HEADER,
    CallbackMessage,
    CreatePayment,
    CreateRefund,
    ErrorMessage,
    Keys,
    Message,
    PaymentMessage,
    Purpose,
    RefundMessage,
    Signed,
    UnreadableMessage,
    read_message,
    sign,
    verify,
)

_ACK_STATUS: Final = {
    Refusal.BAD_SIGNATURE: 401,
    Refusal.STALE: 401,
    Refusal.MALFORMED: 400,
    Refusal.UNKNOWN_NUMBER: 404,
    Refusal.MISMATCH: 409,
    Refusal.UNAVAILABLE: 503,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxProviderSettings:
    """How this side reaches the sandbox gateway, and who it is there."""

    url: str  # of the gateway, without a path
    callback_url: str  # of our /v1/callbacks/sandbox, as the gateway reaches it
    keys: Mapping[str, bytes] = field(repr=False)  # by key id; the first one signs
    account: str = ""  # our name of the merchant account, the last part of callback_url
    merchant_id: str = "sandbox-merchant"
    app_id: str = "sandbox-app"
    connect_timeout_ms: int = 1_000  # after that it is surely not sent
    answer_timeout_ms: int = 4_000  # after that it is unknown
    connections_max: int = 32

    def __post_init__(self) -> None:
        assert self.url.startswith(("http://", "https://"))
        assert self.callback_url.startswith(("http://", "https://"))
        assert 0 < self.connect_timeout_ms <= self.answer_timeout_ms
        assert self.connections_max >= 1


@dataclass(frozen=True, slots=True)
class _Answer:
    """A signed answer below 500."""

    status: int
    body: bytes


class SandboxProvider:
    """One merchant account at the sandbox gateway; use it as an async context."""

    code: Final = "sandbox"
    products: Final = frozenset({Product.QR, Product.NATIVE, Product.PAGE, Product.H5, Product.WAP})

    def __init__(self, settings: SandboxProviderSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._keys = Keys(settings.keys)
        self._callback_path = urlsplit(settings.callback_url).path
        self.account = MerchantAccount(settings.account, settings.merchant_id, settings.app_id)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.connections_max),
            timeout=aiohttp.ClientTimeout(
                total=settings.answer_timeout_ms / 1000,
                connect=None,
                sock_connect=settings.connect_timeout_ms / 1000,
            ),
            # Neither proxies of the environment nor redirects: a signed request
            # goes to the gateway or nowhere.
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def create(self, charge: ChargeRequest) -> Result[Action]:
        told = await self._call(
            "POST",
            "/v1/payments",
            PaymentMessage,
            CreatePayment(
                number=charge.number,
                merchant_id=self.account.merchant_id,
                app_id=self.account.app_id,
                product=charge.product,
                amount_minor=charge.amount_minor,
                currency=charge.currency,
                description=charge.description,
                expires_at=charge.expires_at,
                callback_url=self._settings.callback_url,
                return_url=charge.return_url,
            ),
        )
        if told.value is None:
            return Result(told.outcome, code=told.code)
        return Result(told.outcome, _action(charge.product, told.value.page), raw=told.raw)

    async def query(self, attempt: AttemptReference) -> Result[PaySnapshot]:
        told = await self._call("GET", f"/v1/payments/{attempt.number}", PaymentMessage)
        if told.value is not None:
            return _checked_number(told, _pay_snapshot(told.value), attempt.number)
        if told.code == NOT_FOUND_CODE:
            missing = PaySnapshot(number=attempt.number, state=PayState.NOT_FOUND)
            return Result(Outcome.CONFIRMED, missing, told.code, told.raw)
        return Result(told.outcome, code=told.code)

    async def close(self, attempt: AttemptReference) -> Result[None]:
        path = f"/v1/payments/{attempt.number}/close"
        told = await self._call("POST", path, PaymentMessage)
        return Result(told.outcome, code=told.code)

    async def refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        told = await self._call(
            "POST",
            "/v1/refunds",
            RefundMessage,
            CreateRefund(
                number=refund.number,
                payment_number=refund.attempt.number,
                merchant_id=self.account.merchant_id,
                amount_minor=refund.amount_minor,
                currency=refund.currency,
                reason=refund.reason,
                callback_url=self._settings.callback_url,
            ),
        )
        if told.value is None:
            return Result(told.outcome, code=told.code)
        return _checked_number(told, _refund_snapshot(told.value), refund.number)

    async def query_refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        told = await self._call("GET", f"/v1/refunds/{refund.number}", RefundMessage)
        if told.value is not None:
            return _checked_number(told, _refund_snapshot(told.value), refund.number)
        if told.code == NOT_FOUND_CODE:
            missing = RefundSnapshot(
                number=refund.number,
                attempt_number=refund.attempt.number,
                status=RefundStatus.NOT_FOUND,
            )
            return Result(Outcome.CONFIRMED, missing, told.code, told.raw)
        return Result(told.outcome, code=told.code)

    def parse_notification(self, headers: Mapping[str, str], raw: bytes) -> Verified:
        """Check and read one callback; see provider.Provider."""
        message = Signed(Purpose.CALLBACK, "POST", self._callback_path, raw)
        verify(self._keys, message, headers, self._now_seconds())
        try:
            told = read_message(raw, CallbackMessage)
        except UnreadableMessage as error:
            raise MalformedMessage(why=str(error)) from error
        if (told.payment is None) == (told.refund is None):
            raise MalformedMessage(why="neither or both of payment and refund")
        about = (
            _pay_snapshot(told.payment)
            if told.payment is not None
            else _refund_snapshot(_present(told.refund))
        )
        event = Event(
            provider=self.code, notification_id=told.id, event_at=told.created_at, about=about
        )
        return Verified(event, _kept_headers(headers), raw)

    def ack(self, refusal: Refusal | None = None) -> HttpReply:
        """Answer 200 SUCCESS, or a status that makes the gateway repeat."""
        code = "SUCCESS" if refusal is None else refusal.upper()
        status = 200 if refusal is None else _ACK_STATUS[refusal]
        return HttpReply(status, "application/json", msgspec.json.encode({"code": code}))

    async def _call(
        self,
        method: str,
        path: str,
        type_: type[Message],
        body: msgspec.Struct | None = None,
    ) -> Result[Message]:
        """Send one signed request and read its signed answer."""
        raw = b"" if body is None else msgspec.json.encode(body)
        answer = await self._send(method, path, raw)
        if isinstance(answer, Outcome):
            return Result(answer)
        try:
            if answer.status >= 400:
                refused = read_message(answer.body, ErrorMessage)
                return Result(Outcome.REJECTED, code=refused.code, raw=answer.body)
            value = read_message(answer.body, type_)
        except UnreadableMessage:
            return Result(Outcome.UNKNOWN, code="unreadable")
        pending = answer.status == 202
        return Result(Outcome.PENDING if pending else Outcome.CONFIRMED, value, raw=answer.body)

    async def _send(self, method: str, path: str, body: bytes) -> _Answer | Outcome:
        assert self._session is not None, "use the provider as an async context"
        nonce = secrets.token_hex(16)
        request = Signed(Purpose.REQUEST, method, path, body)
        headers = sign(self._keys, request, self._now_seconds(), nonce)
        headers["Content-Type"] = "application/json"
        url = URL(self._settings.url + path, encoded=True)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = _Answer(response.status, await response.read())
                told = response.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Outcome.NOT_SENT
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Outcome.UNKNOWN
        if answer.status >= 500 or not self._is_from_gateway(path, nonce, answer, told):
            return Outcome.UNKNOWN
        return answer

    def _is_from_gateway(
        self, path: str, nonce: str, answer: _Answer, headers: Mapping[str, str]
    ) -> bool:
        message = Signed(Purpose.RESPONSE, str(answer.status), path, answer.body)
        try:
            return verify(self._keys, message, headers, self._now_seconds()) == nonce
        except (BadSignature, StaleMessage):
            return False

    def _now_seconds(self) -> int:
        return self._clock.now_ms() // 1000


def _action(product: Product, page: str) -> Action:
    if product in (Product.QR, Product.NATIVE):
        return QrAction(text=page, page=page)
    return RedirectAction(page)


Snapshot = TypeVar("Snapshot", PaySnapshot, RefundSnapshot)


def _checked_number(told: Result[Any], snapshot: Snapshot, asked: str) -> Result[Snapshot]:
    """Take an answer about another number for no answer at all."""
    if snapshot.number != asked:
        return Result(Outcome.UNKNOWN, code="other_number")
    return Result(told.outcome, snapshot, told.code, told.raw)


def _pay_snapshot(told: PaymentMessage) -> PaySnapshot:
    return PaySnapshot(
        number=told.number,
        state=told.state,
        merchant_id=told.merchant_id,
        app_id=told.app_id,
        provider_number=told.provider_number,
        amount_minor=told.amount_minor,
        currency=told.currency,
        paid_at=told.paid_at,
    )


def _refund_snapshot(told: RefundMessage) -> RefundSnapshot:
    return RefundSnapshot(
        number=told.number,
        attempt_number=told.payment_number,
        status=told.status,
        merchant_id=told.merchant_id,
        provider_number=told.provider_number,
        amount_minor=told.amount_minor,
        currency=told.currency,
    )


def _present(refund: RefundMessage | None) -> RefundMessage:
    assert refund is not None
    return refund


def _kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Keep what a later look at the signature needs; the signature itself is no secret."""
    wanted = (KEY_HEADER, TIMESTAMP_HEADER, NONCE_HEADER)
    told = {name.lower(): value for name, value in headers.items()}
    return {name: told.get(name.lower(), "") for name in wanted}
