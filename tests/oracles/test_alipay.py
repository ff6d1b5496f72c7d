"""
Alipay's signatures with other people's SDKs as judges and as signers.

`python-alipay-sdk` and Alipay's own `alipay-sdk-python` share no code with us.
Signatures by RSA PKCS#1 v1.5 are the same for the same text and key, so what we
and they sign is compared as it is. Where they are known to be wrong, the row says so.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import parse_qs, parse_qsl, urlencode

import pytest

from app.kernel.errors import BadSignature
from app.payments.provider import MalformedMessage, MerchantAccount
from app.payments.providers.alipay.notifications import read_notification
from app.payments.providers.alipay.response import read_envelope, verified_content
from app.payments.providers.alipay.settings import AlipayAccount, credentials_of
from app.payments.providers.alipay.signing import sign_request
from app.payments.providers.keys import read_account
from tests.oracles.process import Disagreed, Oracle, open_oracle
from tests.unit.payments.alipay.alipay_side import (
    APP_ID,
    SELLER_ID,
    answer,
    bare,
    key,
    notification_fields,
    pem,
    private_pem,
    public_pem,
    signed_form,
    signed_text,
)
from tests.unit.payments.alipay.test_notifications import FORGED
from tests.unit.payments.alipay.test_response import CONTENTS, METHOD
from tests.unit.payments.alipay.test_settings import ALIPAY, APP, CERTIFICATE_MODE, ROOT

ACCOUNT: Final = MerchantAccount("", SELLER_ID, APP_ID)
KEYS: Final = (key("alipay").public_key(),)
MEMBER: Final = f"{METHOD.replace('.', '_')}_response"

REQUESTS: Final = [
    {
        "app_id": APP_ID,
        "method": "alipay.trade.page.pay",
        "format": "JSON",
        "charset": "utf-8",
        "sign_type": "RSA2",
        "timestamp": "2026-11-22 12:00:00",
        "version": "1.0",
        "notify_url": "https://shop.example/v1/callbacks/alipay",
        "return_url": "https://shop.example/done?order=1&x=é",
        "biz_content": '{"out_trade_no":"1","subject":"一件 a}b \\"c\\"","total_amount":"0.01"}',
    },
    {"sign_type": "RSA2", "app_id": "1", "charset": "utf-8", "a": "b=c&d", "Z": "+ %20", "_": "/"},
]


@asynccontextmanager
async def opened(private_key: str = "app") -> AsyncIterator[Oracle]:
    async with open_oracle("alipay") as oracle:
        await oracle.ask(
            "open",
            app_id=APP_ID,
            private_key=private_pem(private_key),
            alipay_public_key=public_pem("alipay"),
        )
        yield oracle


async def test_all_sign_a_request_alike():
    async with opened() as oracle, open_oracle("alipay_official") as official:
        for request in REQUESTS:
            ours = sign_request(key("app"), request)
            theirs = dict(parse_qsl(await oracle.ask("sign", parameters=dict(request))))
            assert theirs == ours
            private_key = bare(private_pem("app"))
            told = await official.ask("sign", parameters=request, private_key=private_key)
            assert told == ours["sign"]


async def test_serials_are_counted_alike():
    """The SDK takes no elliptic root by its split; ours counts the RSA ones of any bundle."""
    document = {**CERTIFICATE_MODE, "alipay_root_certificate": pem(ROOT)}
    account = read_account(document, AlipayAccount, "alipay", [])
    assert account is not None
    serials = credentials_of(account).request_serials
    async with open_oracle("alipay") as oracle:
        await oracle.ask(
            "open_certificates",
            app_id=APP_ID,
            private_key=private_pem("app"),
            app=pem(APP),
            alipay=pem(ALIPAY),
            root=pem(ROOT),
        )
        told = await oracle.ask("serials")
    assert told == [serials["app_cert_sn"], serials["alipay_root_cert_sn"]]


async def test_what_they_sign_we_believe():
    fields = notification_fields(subject='一件 "a" \\ b + c=d')
    async with opened(private_key="alipay") as alipay:
        sign = await alipay.ask("sign_text", text=signed_text(fields).decode())
        content = '{"code":"10000","subject":"一件"}'
        signed = await alipay.ask("sign_text", text=content)
    event = read_notification(urlencode({**fields, "sign": sign}).encode(), KEYS, ACCOUNT)
    assert event.notification_id == fields["notify_id"]
    raw = f'{{"{MEMBER}":{content},"sign":"{signed}"}}'.encode()
    assert verified_content(read_envelope(raw, METHOD), KEYS).decode() == content


GENUINE: Final = [
    notification_fields(),
    notification_fields(trade_status="TRADE_CLOSED", refund_fee="12.34"),
    notification_fields(subject="一件 & \U0001f600", body="a+b %20"),
    notification_fields(passback_params="a%3D1%26b%3D2"),
]


async def test_what_we_believe_they_believe():
    async with opened() as oracle, open_oracle("alipay_official") as official:
        for fields in GENUINE:
            raw = signed_form(fields)
            assert read_notification(raw, KEYS, ACCOUNT).provider == "alipay"
            told = dict(parse_qsl(raw.decode(), keep_blank_values=True))
            assert await oracle.ask("judge_notification", fields=dict(told)) is True
            assert await official.ask(
                "judge_notification", fields=told, public_key=bare(public_pem("alipay"))
            )


async def test_what_they_refuse_we_refuse():
    """And what only we refuse has a reason that they do not look at."""
    only_we = set()
    async with opened() as oracle:
        for name, raw in FORGED.items():
            with pytest.raises((BadSignature, MalformedMessage)):
                read_notification(raw, KEYS, ACCOUNT)
            text = raw.decode("utf-8", "replace")
            told = {
                name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()
            }
            try:
                if await oracle.ask("judge_notification", fields=told):
                    only_we.add(name)
            except Disagreed:
                continue
    assert only_we == ONLY_WE_REFUSE


# Another spelling of base64, no algorithm named, a name twice, one text with two readings.
ONLY_WE_REFUSE: Final = {
    "a field folded into another's name",
    "a signature with a space",
    "no algorithm",
    "the amount twice",
    "the status twice",
    "a field folded into another",
    "a field unfolded from another",
}


async def test_alipays_own_sdk_believes_sha_1_and_we_do_not():
    raw = FORGED["SHA-1 called RSA2"]
    fields = dict(parse_qsl(raw.decode()))
    async with open_oracle("alipay_official") as official:
        public_key = bare(public_pem("alipay"))
        assert await official.ask("judge_notification", fields=fields, public_key=public_key)
    with pytest.raises(BadSignature):
        read_notification(raw, KEYS, ACCOUNT)


async def test_answers_are_read_alike_where_they_can_read_them():
    by_sdk = by_official = 0
    async with opened() as oracle, open_oracle("alipay_official") as official:
        for content in CONTENTS:
            raw = answer(METHOD, content)
            ours = verified_content(read_envelope(raw, METHOD), KEYS)
            assert ours == content
            try:
                theirs = await oracle.ask("judge_answer", raw=raw.decode(), member=MEMBER)
                assert theirs == json.loads(ours)
                by_sdk += 1
            except Disagreed:  # a brace in a string
                assert b"}" in content[:-1] or b"{" in content[1:]
            told = await official.ask(
                "judge_answer", raw=raw.decode(), public_key=bare(public_pem("alipay"))
            )
            assert told.encode() == ours
            by_official += 1
    assert by_sdk >= 5
    assert by_official == len(CONTENTS)


async def test_neither_believes_a_changed_answer():
    changed = answer(METHOD, b'{"code":"10000","total_amount":"12.34"}').replace(b"12", b"99", 1)
    async with opened() as oracle, open_oracle("alipay_official") as official:
        with pytest.raises(Disagreed, match="AliPayValidationError"):
            await oracle.ask("judge_answer", raw=changed.decode(), member=MEMBER)
        public_key = bare(public_pem("alipay"))
        with pytest.raises(Disagreed, match="sign verify failed"):
            await official.ask("judge_answer", raw=changed.decode(), public_key=public_key)
    with pytest.raises(BadSignature):
        verified_content(read_envelope(changed, METHOD), KEYS)
