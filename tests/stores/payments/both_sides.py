"""
A real provider and the gateway it speaks to, on loopback, with nothing shared but keys.

What the gateway posts is read by the provider as its callback route would, and
kept; the answer is the provider's own.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web

from app.embedded.payment_keys import new_payment_keys
from app.kernel.clock import instant
from app.kernel.errors import Untrusted
from app.payments.provider import (
    AttemptReference,
    ChargeRequest,
    Product,
    RefundRequest,
    Refusal,
    TransferRequest,
    Verified,
)
from app.payments.providers.alipay.provider import AlipayProvider
from app.payments.providers.alipay.settings import AlipayAccount
from app.payments.providers.http import ProviderCalls
from app.payments.providers.keys import decode_key
from app.payments.providers.wechatpay.provider import WechatpayProvider
from app.payments.providers.wechatpay.settings import WechatpayAccount
from app.sandbox.alipay.merchants import AlipayMerchant
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.wechatpay.merchants import WechatpayMerchant
from tests.fakes import FixedClock

KEYS: Final = new_payment_keys()
STRANGERS: Final = new_payment_keys()
NUMBER: Final = "0123456789ABCDEFGHJKMNPQRS01"
PRICE_MINOR: Final = 8_880


@dataclass
class BothSides:
    """One provider, its gateway, and every callback that came."""

    provider: Any
    gateway_url: str
    clock: FixedClock
    client: aiohttp.ClientSession
    heard: list[Verified | Untrusted] = field(default_factory=list)
    refuse_times: int = 0

    def charge(self, number: str = NUMBER, **changes: Any) -> ChargeRequest:
        now = instant(self.clock.now_ms())
        asked = {
            "number": number,
            "product": Product.NATIVE,
            "amount_minor": PRICE_MINOR,
            "currency": "CNY",
            "description": "Order 1",
            "created_at": now,
            "expires_at": now + timedelta(minutes=15),
        }
        return ChargeRequest(**{**asked, **changes})

    def attempt(self, number: str = NUMBER) -> AttemptReference:
        return AttemptReference(
            number=number,
            provider_number=None,
            amount_minor=PRICE_MINOR,
            currency="CNY",
            created_at=instant(self.clock.now_ms()),
        )

    def refund(self, ordinal: int = 1, amount_minor: int = PRICE_MINOR) -> RefundRequest:
        return RefundRequest(
            number=f"R{NUMBER}S0{ordinal}",
            attempt=self.attempt(),
            amount_minor=amount_minor,
            currency="CNY",
            reason="test",
            requested_at=instant(self.clock.now_ms()),
        )

    def transfer(self, number: str = "T0000001", **changes: Any) -> TransferRequest:
        asked = {
            "number": number,
            "payee_id": "oPayee0001",
            "amount_minor": 5_000,
            "currency": "CNY",
            "description": "commission",
            "requested_at": instant(self.clock.now_ms()),
        }
        return TransferRequest(**{**asked, **changes})

    async def play(self, number: str = NUMBER, **what: object) -> int:
        url = f"{self.gateway_url}/control/payments/{number}"
        async with self.client.post(url, json=what) as response:
            return response.status

    async def end(self, kind: str, number: str, outcome: str) -> int:
        """End a refund or a transfer that was held."""
        url = f"{self.gateway_url}/control/{kind}/{number}"
        async with self.client.post(url, json={"outcome": outcome}) as response:
            return response.status

    def events(self) -> list[Any]:
        return [one.event.about for one in self.heard if isinstance(one, Verified)]

    def refused(self) -> list[Untrusted]:
        return [one for one in self.heard if isinstance(one, Untrusted)]

    async def receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            self.heard.append(self.provider.parse_notification(request.headers, raw))
        except Untrusted as error:
            self.heard.append(error)
            return _reply(self.provider.ack(Refusal.BAD_SIGNATURE))
        if self.refuse_times > 0:
            self.refuse_times -= 1
            return _reply(self.provider.ack(Refusal.UNAVAILABLE))
        return _reply(self.provider.ack())


def _reply(told: Any) -> web.Response:
    headers = {"Content-Type": told.content_type}
    return web.Response(status=told.status, body=told.body, headers=headers)


def gateway_settings(tmp_path: Path, **changes: Any) -> SandboxSettings:
    told: dict[str, Any] = {
        "port": 0,
        "journal_dir": tmp_path / "gateway",
        "keys": {"k1": b"k" * 32},
        "wechatpay": (msgspec.convert(KEYS.wechatpay_merchant_document(), WechatpayMerchant),),
        "alipay": (msgspec.convert(KEYS.alipay_merchant_document(), AlipayMerchant),),
        "clock_factor": 600,
        "refund_after_ms": 100,
        "transfer_after_ms": 100,
        "late_callback_ms": 200,
        "second_callback_ms": 50,
    }
    return SandboxSettings(**{**told, **changes})


@contextlib.asynccontextmanager
async def both_sides(
    tmp_path: Path, which: str, document: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[BothSides]:
    """
    Run a gateway and one provider against it.

    Args:
        tmp_path: for the gateway's journal.
        which: `wechatpay` or `alipay`.
        document: what differs in the merchant's account.
        changes: what differs in the gateway's settings.
    """
    clock = FixedClock(time.time_ns() // 1_000_000)
    async with contextlib.AsyncExitStack() as opened:
        settings = gateway_settings(tmp_path, **changes)
        url = await opened.enter_async_context(serve_sandbox(settings, clock))
        client = await opened.enter_async_context(aiohttp.ClientSession())
        http = await opened.enter_async_context(ProviderCalls())
        sides = BothSides(None, url, clock, client)
        callback_url = await opened.enter_async_context(_listening(sides))
        told = {**getattr(KEYS, f"{which}_account")(url), **(document or {})}
        if which == "wechatpay":
            account = msgspec.convert(told, WechatpayAccount, dec_hook=decode_key)
            provider = WechatpayProvider(account, http, clock, callback_url)
            sides.provider = await opened.enter_async_context(provider)
        else:
            account = msgspec.convert(told, AlipayAccount, dec_hook=decode_key)
            provider = AlipayProvider(account, http, clock, callback_url)
            sides.provider = await opened.enter_async_context(provider)
        yield sides


@contextlib.asynccontextmanager
async def _listening(sides: BothSides) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/callbacks", sides.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks"
    finally:
        await runner.cleanup()
