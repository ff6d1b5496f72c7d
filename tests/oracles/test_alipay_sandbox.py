"""
`python-alipay-sdk` as a merchant of our sandbox gateway, and as judge of what it posts.

The SDK signs and the gateway believes; the gateway signs and the SDK believes; and
what both the SDK and our provider read in the same notification is the same.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import aiohttp
import msgspec
import pytest

from app.kernel.clock import SystemClock
from app.kernel.errors import Untrusted
from app.payments.provider import PaySnapshot, PayState
from app.payments.providers.alipay.provider import AlipayProvider, open_provider
from app.payments.providers.alipay.settings import AlipayAccount
from app.payments.providers.http import ProviderCalls
from app.payments.providers.keys import decode_key
from app.sandbox.alipay.merchants import AlipayMerchant
from app.sandbox.server import serve_sandbox
from tests.oracles.process import Disagreed, Oracle, open_oracle
from tests.oracles.test_wechatpay import Callbacks, listening
from tests.stores.payments.both_sides import KEYS, gateway_settings
from tests.waiting import eventually

NUMBER: Final = "0123456789ABCDEFGHJKMNPQRS01"
REFUND_NUMBER: Final = f"R{NUMBER}S01"
TRADE: Final = {
    "subject": "Teapot a}b{c 一件",
    "out_trade_no": NUMBER,
    "total_amount": "88.80",
    "product_code": "QR_CODE_OFFLINE",
}
# Read by both sides of each notification: theirs, and ours.
PAIRS: Final = {"out_trade_no": "number", "trade_no": "provider_number", "app_id": "app_id"}


@dataclass(frozen=True)
class Client:
    """The SDK at the sandbox, what the sandbox posts, and our provider of the same app."""

    oracle: Oracle
    callbacks: Callbacks
    ours: AlipayProvider
    gateway_url: str

    async def call(self, method: str, content: dict[str, Any], **extra: str) -> Any:
        return await self.oracle.ask(
            "call", method=f"alipay.trade.{method}", content=content, **extra
        )

    async def play(self, **what: object) -> None:
        url = f"{self.gateway_url}/control/payments/{NUMBER}"
        async with aiohttp.ClientSession() as session, session.post(url, json=what) as response:
            assert response.status == 202

    async def judge(self, raw: bytes) -> bool:
        fields = dict(parse_qsl(raw.decode(), keep_blank_values=True))
        return bool(await self.oracle.ask("judge_notification", fields=fields))


MODES: Final = ("keys", "certificates")


@pytest.fixture(params=MODES)
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    """The SDK as an app of the sandbox, in each of the two modes of its keys."""
    merchant, document = KEYS.alipay_merchant_document(), KEYS.alipay_account("")
    if request.param == "keys":
        merchant = _in_key_mode(merchant, app_public_key=KEYS.alipay_app.public_key)
        document = _in_key_mode(document, alipay_public_keys=[KEYS.alipay_gateway.public_key])
    apps = (msgspec.convert(merchant, AlipayMerchant),)
    async with (
        serve_sandbox(gateway_settings(tmp_path, alipay=apps), SystemClock()) as url,
        listening() as callbacks,
        open_oracle("alipay") as oracle,
        ProviderCalls() as calls,
    ):
        gateway = f"{url}/gateway.do"
        account = msgspec.convert(
            document | {"gateway_url": gateway}, AlipayAccount, dec_hook=decode_key
        )
        await _open(oracle, request.param)
        await oracle.ask("go_to", gateway=gateway)
        ours = open_provider(account, calls, SystemClock(), callbacks.url)
        yield Client(oracle, callbacks, ours, url)


async def _open(oracle: Oracle, mode: str) -> None:
    document = KEYS.alipay_account("")
    app = {"app_id": document["app_id"], "private_key": document["private_key"]}
    if mode == "keys":
        await oracle.ask("open", **app, alipay_public_key=KEYS.alipay_gateway.public_key)
        return
    await oracle.ask(
        "open_certificates",
        **app,
        app=document["app_certificate"],
        alipay=document["alipay_certificates"][0],
        root=document["alipay_root_certificate"],
    )


def _in_key_mode(document: dict[str, Any], **added: Any) -> dict[str, Any]:
    return {name: told for name, told in document.items() if "certificate" not in name} | added


async def test_the_sdk_is_a_merchant_of_our_sandbox(client: Client):
    opened = await client.call("precreate", TRADE, notify_url=client.callbacks.url)
    assert (opened["code"], opened["out_trade_no"]) == ("10000", NUMBER)
    assert opened["qr_code"].startswith(client.gateway_url)
    name = {"out_trade_no": NUMBER}
    assert (await client.call("query", name))["sub_code"] == "ACQ.TRADE_NOT_EXIST"

    await client.play(outcome="scan")
    assert (await client.call("query", name))["trade_status"] == "WAIT_BUYER_PAY"
    await client.play(outcome="pay")
    asked = await client.call("query", name)
    assert (asked["trade_status"], asked["total_amount"]) == ("TRADE_SUCCESS", "88.80")

    refund = {**name, "out_request_no": REFUND_NUMBER, "refund_amount": "0.80"}
    first, second = [await client.call("refund", refund) for _ in range(2)]
    assert [one["fund_change"] for one in (first, second)] == ["Y", "N"]
    assert [one["refund_fee"] for one in (first, second)] == ["0.80", "0.80"]
    asked = await client.call("fastpay.refund.query", {**name, "out_request_no": REFUND_NUMBER})
    assert (asked["refund_status"], asked["refund_amount"]) == ("REFUND_SUCCESS", "0.80")
    closed = await client.call("close", name)
    assert (closed["code"], closed["sub_code"]) == ("40004", "ACQ.REASON_TRADE_STATUS_INVALID")


async def test_the_sdk_and_we_read_the_same_notifications(client: Client):
    await client.call("precreate", TRADE, notify_url=client.callbacks.url)
    await client.play(outcome="scan")
    await client.play(outcome="pay")
    await eventually(lambda: len(client.callbacks.heard) == 1)
    name = {"out_trade_no": NUMBER}
    refund = {**name, "out_request_no": REFUND_NUMBER, "refund_amount": "0.80"}
    await client.call("refund", refund)
    await eventually(lambda: len(client.callbacks.heard) == 2)
    states = []
    for headers, raw in client.callbacks.heard:
        about = client.ours.parse_notification(headers, raw).event.about
        assert await client.judge(raw)
        assert isinstance(about, PaySnapshot)
        fields = dict(parse_qsl(raw.decode()))
        assert {ours: fields[theirs] for theirs, ours in PAIRS.items()} == {
            ours: getattr(about, ours) for ours in PAIRS.values()
        }
        assert about.amount_minor == 8_880
        states.append(about.state)
        changed = raw.replace(b"88.80", b"99.90", 1)
        assert changed != raw
        assert not await client.judge(changed)
        with pytest.raises(Untrusted):
            client.ours.parse_notification(headers, changed)
    assert states == [PayState.PAID, PayState.PARTIAL_REFUND]


async def test_the_sdk_hears_a_stranger_refused(client: Client):
    """Who signs with another key is told so without a signature, and the SDK raises."""
    document = KEYS.alipay_account("")
    async with open_oracle("alipay") as stranger:
        await stranger.ask(
            "open",
            app_id=document["app_id"],
            private_key=KEYS.wechatpay_merchant.private_key,
            alipay_public_key=KEYS.alipay_gateway.public_key,
        )
        await stranger.ask("go_to", gateway=f"{client.gateway_url}/gateway.do")
        with pytest.raises(Disagreed, match=r"isv\.invalid"):
            await stranger.ask("call", method="alipay.trade.precreate", content=TRADE)
