"""
Two merchant accounts of one wallet at the real gateway: the second opens what the first may not.

Nothing but the gateway's own words decides it: what it signed about the account
leads on, what it did not sign, or never said, does not.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest

from app.payments.intent import AttemptState
from app.payments.provider import Provider
from app.payments.providers.alipay.provider import AlipayProvider
from app.payments.providers.alipay.settings import AlipayAccount
from app.payments.providers.http import ProviderCalls
from app.payments.providers.keys import decode_key
from app.payments.providers.wechatpay.provider import WechatpayProvider
from app.payments.providers.wechatpay.settings import WechatpayAccount
from app.payments.stage import Providers
from app.payments.start import Started, start_payment
from app.payments.views import PaymentStatus
from app.sandbox.alipay.merchants import AlipayMerchant
from app.sandbox.server import serve_sandbox
from tests.stores.payments.both_sides import KEYS, gateway_settings
from tests.stores.payments.desk import Desk

SUSPENDED_APP: Final = "2021000000000110"
CALLBACKS: Final = "https://shop.example/callbacks"


def alipay_at(desk: Desk, url: str, http: ProviderCalls, **changes: Any) -> AlipayProvider:
    document = KEYS.alipay_account(url) | changes
    account = msgspec.convert(document, AlipayAccount, dec_hook=decode_key)
    return AlipayProvider(account, http, desk.clock, CALLBACKS)


def wechatpay_at(desk: Desk, url: str, http: ProviderCalls, **changes: Any) -> WechatpayProvider:
    document = KEYS.wechatpay_account(url) | {"platform_certificates": False} | changes
    account = msgspec.convert(document, WechatpayAccount, dec_hook=decode_key)
    return WechatpayProvider(account, http, desk.clock, CALLBACKS)


def accounts(desk: Desk, url: str, http: ProviderCalls) -> dict[str, list[Provider]]:
    """Of each wallet: an account that the gateway refuses, and one that it serves."""
    return {
        # The app is not bound to the merchant number.
        "wechatpay": [
            wechatpay_at(desk, url, http, name="first", appid="wxunbound00000001"),
            wechatpay_at(desk, url, http),
        ],
        "alipay": [
            alipay_at(desk, url, http, name="first", app_id=SUSPENDED_APP),
            alipay_at(desk, url, http),
        ],
        # The gateway does not know this app, so it signs nothing for it.
        "unrecognised": [
            alipay_at(desk, url, http, name="first", app_id="2021000000000999"),
            alipay_at(desk, url, http),
        ],
    }


@contextlib.asynccontextmanager
async def gateway(tmp_path: Path, desk: Desk) -> AsyncIterator[str]:
    """Run a gateway that knows one Alipay app besides whose contract is suspended."""
    document = KEYS.alipay_merchant_document()
    suspended = document | {"app_id": SUSPENDED_APP, "is_blocked": True}
    apps = tuple(msgspec.convert(one, AlipayMerchant) for one in (document, suspended))
    settings = gateway_settings(tmp_path / "failover", alipay=apps)
    async with serve_sandbox(settings, desk.clock) as url:
        yield url


@pytest.mark.parametrize("wallet", ["wechatpay", "alipay"])
async def test_an_account_that_the_wallet_refuses_is_left_for_the_next(
    desk: Desk, tmp_path: Path, wallet: str
):
    key = await desk.place()
    async with gateway(tmp_path, desk) as url, ProviderCalls() as http:
        both = accounts(desk, url, http)[wallet]
        stage = desk.stage_with(Providers(both))
        wish = desk.wish(key, provider=wallet)
        started = await start_payment(stage, wish)
        again = await start_payment(stage, wish)

    assert isinstance(started, Started)
    assert started.payment.status is PaymentStatus.OPEN
    assert again == Started(started.payment, replayed=True)
    order_id = desk.order_id(key)
    first, second = [await desk.attempt(f"{order_id}0{ordinal}") for ordinal in (1, 2)]
    assert (first.state, first.account) == (AttemptState.CLOSED, "first")
    assert (second.state, second.account) == (AttemptState.OPEN, "")


async def test_what_the_wallet_did_not_sign_leads_nowhere(desk: Desk, tmp_path: Path):
    key = await desk.place()
    async with gateway(tmp_path, desk) as url, ProviderCalls() as http:
        stage = desk.stage_with(Providers(accounts(desk, url, http)["unrecognised"]))
        started = await start_payment(stage, desk.wish(key, provider="alipay"))

    assert isinstance(started, Started)
    assert started.payment.status is PaymentStatus.UNKNOWN
    assert len(await desk.rows("SELECT 1 FROM payment_attempts")) == 1


@pytest.mark.parametrize("wallet", ["wechatpay", "alipay"])
async def test_an_answer_that_was_lost_leads_nowhere(desk: Desk, tmp_path: Path, wallet: str):
    key = await desk.place()
    number = f"{desk.order_id(key)}01"
    async with gateway(tmp_path, desk) as url, ProviderCalls() as http:
        control = f"{url}/control/payments/{number}"
        script = {"script": {"lost_answers": {"create": 9}}}
        async with aiohttp.ClientSession() as tester, tester.post(control, json=script) as told:
            assert told.status == 202
        served = accounts(desk, url, http)[wallet][1]
        other = {"wechatpay": wechatpay_at, "alipay": alipay_at}[wallet]
        stage = desk.stage_with(Providers([served, other(desk, url, http, name="second")]))
        started = await start_payment(stage, desk.wish(key, provider=wallet))

    assert isinstance(started, Started)
    assert started.payment.status is PaymentStatus.UNKNOWN
    assert (await desk.attempt(number)).state is AttemptState.CREATED
    assert len(await desk.rows("SELECT 1 FROM payment_attempts")) == 1
