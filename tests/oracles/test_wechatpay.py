"""
WeChat Pay's signatures with somebody else's SDK as judge, as signer and as client.

`wechatpayv3` shares no code with us. Signatures by RSA PKCS#1 v1.5 are the same for
the same text and key, so what both sign is compared byte by byte.
"""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from aiohttp import web

from app.kernel.clock import SystemClock
from app.payments.provider import RefundSnapshot
from app.payments.providers.http import ProviderCalls
from app.payments.providers.keys import decode_key
from app.payments.providers.wechatpay.products import app_action, jsapi_action
from app.payments.providers.wechatpay.provider import open_provider
from app.payments.providers.wechatpay.settings import WechatpayAccount
from app.payments.providers.wechatpay.signing import Request, authorization, encrypt_field
from app.sandbox.server import serve_sandbox
from app.sandbox.wechatpay.merchants import KeyKind, WechatpayMerchant
from tests.oracles.process import Disagreed, Oracle, open_oracle
from tests.stores.payments.both_sides import KEYS, gateway_settings
from tests.unit.payments.wechatpay.gateway_side import (
    API_KEY,
    APPID,
    MCHID,
    PUBLIC_KEY_ID,
    account,
    private_pem,
    public_pem,
    rsa_key,
)
from tests.unit.payments.wechatpay.test_notifications import MESSAGES, ROWS
from tests.waiting import eventually

# The SDK asks for certificates whenever it does not know a serial; nobody is to be asked.
NOWHERE: Final = "http://127.0.0.1:9"
NUMBER: Final = "0123456789ABCDEFGHJKMNPQRS01"
REFUND_NUMBER: Final = f"R{NUMBER}S01"


@asynccontextmanager
async def oracle_of_ours(private_key: str = "merchant") -> AsyncIterator[Oracle]:
    """The SDK with the keys of the unit tests."""
    async with open_oracle("wechatpay") as oracle:
        await oracle.ask(
            "open",
            gateway=NOWHERE,
            mchid=MCHID,
            private_key=private_pem(private_key),
            cert_serial_no=account().merchant.serial,
            appid=APPID,
            apiv3_key=API_KEY,
            notify_url="https://shop.example/c",
            public_key=public_pem("platform"),
            public_key_id=PUBLIC_KEY_ID,
        )
        yield oracle


# method, path and query, body
REQUESTS: Final = [
    ("GET", "/v3/certificates", ""),
    ("GET", f"/v3/pay/transactions/out-trade-no/{NUMBER}?mchid={MCHID}", ""),
    ("GET", "/v3/billdownload/file?token=6XIv5TUPto7pByrTQKhd6kwvyKLG2uY2wMMR8cNX%7C%2B%3D", ""),
    ("POST", f"/v3/pay/transactions/out-trade-no/{NUMBER}/close", '{"mchid":"1900000109"}'),
    ("POST", "/v3/pay/transactions/native", '{"description":"Image形象店-深圳腾大-QQ公仔"}'),
    ("POST", "/v3/refund/domestic/refunds", '{"amount":{"refund":1,"total":2,"currency":"CNY"}}'),
    ("POST", "/v3/x", " {\n}\t"),
]


async def test_both_write_the_same_authorization():
    async with oracle_of_ours() as oracle:
        for method, path, body in REQUESTS:
            theirs = await oracle.ask(
                "authorization",
                method=method,
                path=path,
                body=body,
                timestamp=1_554_208_460,
                nonce="593BEC0C930BF1AFEB40B4A08C8FB242",
            )
            ours = authorization(
                account().merchant,
                Request(method, path, body.encode()),
                "1554208460",
                "593BEC0C930BF1AFEB40B4A08C8FB242",
            )
            assert ours == theirs


async def test_both_sign_the_same_for_the_wallet():
    merchant, stamp, nonce = account().merchant, "1414561699", "5K8264ILTKCH16CQ2502SI8ZNMTM67VS"
    inside = jsapi_action(merchant, APPID, "wx201410272009395522657a690389285100", stamp, nonce)
    from_app = app_action(merchant, APPID, "WX1217752501201407033233368018", stamp, nonce)
    async with oracle_of_ours() as oracle:
        lines = [APPID, stamp, nonce, "prepay_id=wx201410272009395522657a690389285100"]
        assert inside.params["paySign"] == await oracle.ask("sign", lines=lines)
        lines = [APPID, stamp, nonce, "WX1217752501201407033233368018"]
        assert from_app.params["sign"] == await oracle.ask("sign", lines=lines)


async def test_each_reads_the_personal_field_that_the_other_encrypts():
    async with oracle_of_ours(private_key="platform") as platform:
        sealed = encrypt_field(rsa_key("platform").public_key(), "张三 O'Neil")
        assert await platform.ask("decrypt", sealed=sealed) == "张三 O'Neil"


# What we take and the SDK does not: the official SDK for Java takes a message that
# names no algorithm for one of the only algorithm there is.
ONLY_WE_ACCEPT: Final = {"no algorithm named"}
# Sealed with the key before this one: the SDK holds a single key.
ONLY_WE_OPEN: Final = {"the API key before this one"}


async def test_whatever_we_accept_the_sdk_accepts():
    """And so whatever it refuses we refuse: it knows no message that we believe and it does not."""
    accepted = refused_by_both = 0
    async with oracle_of_ours() as oracle:
        for name, expected in ROWS:
            headers, raw = MESSAGES[name.strip()]()
            theirs = await verdict(oracle, headers, raw)
            if expected == "accepted" and name.strip() not in ONLY_WE_ACCEPT | ONLY_WE_OPEN:
                assert theirs is not None, name
                assert theirs["resource"]["out_trade_no"] == NUMBER
                assert theirs["resource"]["amount"]["total"] == 100
                accepted += 1
            elif expected == "bad_signature" and theirs is None:
                refused_by_both += 1
    assert accepted >= 7
    assert refused_by_both >= 25


async def verdict(oracle: Oracle, headers: dict[str, str], raw: bytes) -> dict[str, Any] | None:
    """What the SDK reads in a notification; None when it refuses, in whatever way."""
    try:
        return await oracle.ask("judge", headers=headers, body=base64.b64encode(raw).decode())
    except Disagreed:
        return None


class Callbacks:
    """What the gateway posts, as it comes."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def receive(self, request: web.BaseRequest) -> web.Response:
        self.heard.append((dict(request.headers), await request.read()))
        return web.Response(status=204)


@asynccontextmanager
async def listening() -> AsyncIterator[Callbacks]:
    callbacks = Callbacks()
    runner = web.ServerRunner(web.Server(callbacks.receive))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        callbacks.url = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks"
        yield callbacks
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Client:
    """The SDK at the sandbox, what the sandbox posts, and the same account as ours."""

    oracle: Oracle
    callbacks: Callbacks
    document: dict[str, Any]
    gateway_url: str

    async def call(self, method: str, **arguments: Any) -> tuple[int, Any]:
        status, answer = await self.oracle.ask("call", method=method, **arguments)
        return status, json.loads(answer) if answer else None

    async def play(self, number: str, **what: object) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.gateway_url}/control/payments/{number}", json=what) as response,
        ):
            assert response.status == 202


@pytest.fixture(params=list(KeyKind))
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    """The SDK as a merchant of the sandbox, in each of the two modes of its keys."""
    merchant = KEYS.wechatpay_merchant_document() | {"notify_with": request.param.value}
    settings = gateway_settings(tmp_path, wechatpay=(msgspec.convert(merchant, WechatpayMerchant),))
    async with (
        serve_sandbox(settings, SystemClock()) as url,
        listening() as callbacks,
        open_oracle("wechatpay") as oracle,
    ):
        document = KEYS.wechatpay_account(url)
        await oracle.ask(
            "open",
            gateway=url,
            mchid=document["mchid"],
            private_key=document["private_key"],
            cert_serial_no=document["certificate_serial"],
            appid=document["appid"],
            apiv3_key=document["api_v3_keys"][0],
            notify_url=callbacks.url,
            public_key=document["platform_public_key"],
            public_key_id=document["platform_public_key_id"],
        )
        if request.param is KeyKind.CERTIFICATE:
            assert await oracle.ask("use_certificates") == 1
        yield Client(oracle, callbacks, document, url)


async def test_the_sdk_is_a_merchant_of_our_sandbox(client: Client):
    """It signs, the sandbox accepts; the sandbox signs, it accepts; and we read the same."""
    amount = {"total": 8_880, "currency": "CNY"}
    status, opened = await client.call(
        "pay", description="Teapot", out_trade_no=NUMBER, amount=amount, pay_type="NATIVE"
    )
    assert (status, list(opened)) == (200, ["code_url"])
    status, asked = await client.call("query", out_trade_no=NUMBER)
    assert (status, asked["trade_state"]) == (200, "NOTPAY")

    await client.play(NUMBER, outcome="pay")
    status, asked = await client.call("query", out_trade_no=NUMBER)
    assert (status, asked["trade_state"], asked["amount"]["total"]) == (200, "SUCCESS", 8_880)

    refund = {"refund": 80, "total": 8_880, "currency": "CNY"}
    status, accepted = await client.call(
        "refund", out_trade_no=NUMBER, out_refund_no=REFUND_NUMBER, amount=refund
    )
    assert (status, accepted["status"]) == (200, "PROCESSING")
    status, asked = await client.call("query_refund", out_refund_no=REFUND_NUMBER)
    assert (status, asked["out_refund_no"]) == (200, REFUND_NUMBER)
    status, _ = await client.call("close", out_trade_no=NUMBER)
    assert status == 400
    status, missing = await client.call("query", out_trade_no="NEVERHEARDOF1")
    assert (status, missing["code"]) == (404, "ORDER_NOT_EXIST")


async def test_the_sdk_and_we_read_the_same_callbacks(client: Client):
    amount = {"total": 8_880, "currency": "CNY"}
    refund = {"refund": 80, "total": 8_880, "currency": "CNY"}
    await client.call(
        "pay", description="Teapot", out_trade_no=NUMBER, amount=amount, pay_type="NATIVE"
    )
    await client.play(NUMBER, outcome="pay")
    await eventually(lambda: len(client.callbacks.heard) == 1)
    await client.call(
        "refund",
        out_trade_no=NUMBER,
        out_refund_no=REFUND_NUMBER,
        amount=refund,
        notify_url=client.callbacks.url,
    )
    await eventually(lambda: len(client.callbacks.heard) == 2)
    account_document = msgspec.convert(client.document, WechatpayAccount, dec_hook=decode_key)
    async with ProviderCalls() as calls:
        provider = open_provider(account_document, calls, SystemClock(), client.callbacks.url)
        await provider.renew_keys()
        for headers, raw in client.callbacks.heard:
            theirs = await verdict(client.oracle, headers, raw)
            event = provider.parse_notification(headers, raw).event
            assert theirs is not None
            assert theirs["id"] == event.notification_id
            told = theirs["resource"]
            if isinstance(event.about, RefundSnapshot):
                assert told["out_refund_no"] == event.about.number
                assert told["amount"]["refund"] == event.about.amount_minor == 80
            else:
                assert told["out_trade_no"] == event.about.number
                assert told["amount"]["total"] == event.about.amount_minor == 8_880
            changed = raw.replace(b"EV-", b"EW-", 1) if b"EV-" in raw else raw + b" "
            assert await verdict(client.oracle, headers, changed) is None
