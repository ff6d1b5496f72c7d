"""A small gateway on loopback: checks our signature, and answers with Alipay's own key."""

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from app.payments.provider import AttemptReference, ChargeRequest, Product, RefundRequest
from app.payments.providers.alipay.provider import AlipayProvider, open_provider
from app.payments.providers.alipay.settings import AlipayAccount
from app.payments.providers.http import CallLimits, ProviderCalls
from app.payments.providers.keys import read_account
from tests.fakes import FixedClock
from tests.unit.payments.alipay.alipay_side import (
    APP_ID,
    NOW,
    NOW_MS,
    NUMBER,
    REFUND_NUMBER,
    SELLER_ID,
    TRADE_NO,
    answer,
    certificate,
    key,
    pem,
    private_pem,
    public_pem,
)

PATH: Final = "/gateway.do"
CALLBACK_URL: Final = "https://shop.example/v1/callbacks/alipay"


@dataclass
class Gateway:
    """What the gateway answers next, and what it was asked."""

    answers: list[Callable[[str], web.Response | bytes]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def reply(self, content: Mapping[str, Any] | bytes, **how: Any) -> None:
        """Answer the next question with this content, signed."""
        told = content if isinstance(content, bytes) else msgspec.json.encode(content)
        self.answers.append(lambda method: answer(method, told, **how))

    def reply_raw(self, raw: bytes | web.Response) -> None:
        """Answer the next question with exactly this."""
        self.answers.append(lambda _: raw)

    @property
    def methods(self) -> list[str]:
        """The last word of every method that was asked for, oldest first."""
        return [asked["method"].rpartition(".")[2] for asked in self.asked]

    @property
    def content(self) -> dict[str, Any]:
        """The biz_content of the last question."""
        return msgspec.json.decode(self.asked[-1]["biz_content"])

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-www-form-urlencoded"
        form = await request.post()
        assert set(form) == {"biz_content"}, (
            "SDKs put the content in the body and the rest before it"
        )
        told = {**request.query, **{name: str(value) for name, value in form.items()}}
        check_request(told)
        self.asked.append(told)
        reply = self.answers.pop(0)(told["method"])
        if isinstance(reply, web.Response):
            return reply
        return web.Response(body=reply, content_type="text/html", charset="utf-8")

    async def hand_out(self, request: web.Request) -> web.Response:
        body = self.files.get(request.match_info["name"])
        return web.Response(status=404) if body is None else web.Response(body=body)


def check_request(told: Mapping[str, str], signer: str = "app") -> None:
    """Verify a request the way the documentation says; raises when it is not ours."""
    kept = sorted((name, value) for name, value in told.items() if name != "sign" and value)
    text = "&".join(f"{name}={value}" for name, value in kept)
    public = key(signer).public_key()
    public.verify(base64.b64decode(told["sign"]), text.encode(), PKCS1v15(), SHA256())


@asynccontextmanager
async def running_gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    app = web.Application()
    app.router.add_post("/gateway.do", gateway.take)
    app.router.add_get("/bills/{name}", gateway.hand_out)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    gateway.url = f"http://{host}:{port}"
    try:
        yield gateway
    finally:
        await runner.cleanup()


def account(url: str, **changed: object) -> AlipayAccount:
    """The account as a document says it."""
    mistakes: list[str] = []
    document = {
        "app_id": APP_ID,
        "seller_id": SELLER_ID,
        "private_key": private_pem("app"),
        "alipay_public_keys": [public_pem("alipay")],
        "gateway_url": url,
        **changed,
    }
    read = read_account(document, AlipayAccount, "alipay", mistakes)
    assert read is not None, mistakes
    return read


@asynccontextmanager
async def open_account(
    document: AlipayAccount, clock: FixedClock | None = None, answer_ms: int = 4_000
) -> AsyncIterator[AlipayProvider]:
    limits = CallLimits(connect_ms=min(answer_ms, 4_000), answer_ms=answer_ms)
    async with (
        ProviderCalls(limits) as http,
        open_provider(document, http, clock or FixedClock(NOW_MS), CALLBACK_URL) as provider,
    ):
        yield provider


ATTEMPT: Final = AttemptReference(
    number=NUMBER, provider_number=None, amount_minor=1234, currency="CNY", created_at=NOW
)
REFUND: Final = RefundRequest(
    number=REFUND_NUMBER,
    attempt=ATTEMPT,
    amount_minor=500,
    currency="CNY",
    reason="late_payment",
    requested_at=NOW,
)


def charge(product: Product, **changed: Any) -> ChargeRequest:
    wanted = {
        "number": NUMBER,
        "product": product,
        "amount_minor": 1234,
        "currency": "CNY",
        "description": "Order 1/2 = a&b 一件",
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=10, seconds=30),
        "return_url": "https://shop.example/done?order=1&x=é",
        **changed,
    }
    return ChargeRequest(**wanted)


PAID: Final = {
    "code": "10000",
    "msg": "Success",
    "out_trade_no": NUMBER,
    "trade_no": TRADE_NO,
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "12.34",
    "buyer_user_id": "2088000000000003",
    "send_pay_date": "2026-11-22 12:00:04",
}


def refused(sub_code: str, code: str = "40004") -> dict[str, str]:
    return {"code": code, "msg": "Business Failed", "sub_code": sub_code, "sub_msg": "…"}


ROOT: Final = certificate("root", "Test Root", authority=True, serial=10)
ISSUER: Final = certificate("issuer", "Test Issuer", ("root", "Test Root"), authority=True)
APP: Final = certificate("app", "Merchant", ("issuer", "Test Issuer"), serial=101)
ALIPAY: Final = certificate("alipay", "Alipay 2088", ("issuer", "Test Issuer"), serial=102)
NEXT: Final = certificate("next", "Alipay 2088", ("issuer", "Test Issuer"), serial=103)


def certified(url: str, **changed: object) -> AlipayAccount:
    return account(
        url,
        **{
            "alipay_public_keys": [],
            "app_certificate": pem(APP, ISSUER),
            "alipay_certificates": [pem(ALIPAY, ISSUER)],
            "alipay_root_certificate": pem(ROOT),
            **changed,
        },
    )
