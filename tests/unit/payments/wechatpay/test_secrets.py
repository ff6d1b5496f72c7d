"""Nothing of a payer or of a key is in what we log, raise or show."""

import json
from dataclasses import replace
from typing import Final

import pytest
from structlog.testing import capture_logs

from app.kernel.errors import Untrusted
from app.payments.provider import Product
from app.payments.providers.wechatpay.signing import Request, read_seal
from tests.unit.payments.wechatpay.gateway_server import Answer, open_gateway
from tests.unit.payments.wechatpay.gateway_side import API_KEY, account, private_pem
from tests.unit.payments.wechatpay.test_notifications import MESSAGES, PROVIDER
from tests.unit.payments.wechatpay.test_provider import (
    ASKS,
    CHARGE,
    OPENID,
    TRANSFER,
    UNBELIEVED,
    provider_at,
)

# The middle of the key: what any print of it would hold.
SECRETS: Final = (
    OPENID,
    "张三",
    "203.0.113.7",
    "招商银行",
    API_KEY,
    private_pem("merchant")[60:100],
)


def is_clean(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize("name", MESSAGES)
def test_no_refused_notification_is_quoted(name: str):
    with capture_logs() as logs:
        try:
            told = repr(PROVIDER.parse_notification(*MESSAGES[name]()).event)
        except Untrusted as error:
            told = f"{error} {error!r} {error.__cause__!r}"
    assert is_clean(told)
    assert is_clean(json.dumps(logs, default=repr, ensure_ascii=False))


async def test_no_call_is_quoted_whatever_becomes_of_it():
    personal = json.dumps({"payer": {"openid": OPENID}, "user_name": "张三"}).encode()
    answers = [
        *(make(Answer(body=personal)) for make in UNBELIEVED.values()),
        Answer(body=personal),
        Answer(status=403, body=b'{"code":"NEWS","message":"' + OPENID.encode() + b'"}'),
    ]
    with capture_logs() as logs:
        async with (
            open_gateway() as gateway,
            provider_at(gateway.url, transfer_scene_id="1000") as provider,
        ):
            for answer in answers:
                gateway.say(answer)
                results = [await ask(provider) for ask in ASKS.values()]
                results.append(await provider.create(replace(CHARGE, product=Product.JSAPI)))
                results.append(await provider.transfer(TRANSFER))
                assert is_clean(repr(results))
    assert logs
    assert is_clean(json.dumps(logs, default=repr, ensure_ascii=False))


def test_nothing_that_travels_shows_what_it_carries():
    ours = account()
    shown = [
        CHARGE,
        TRANSFER,
        ours,
        ours.merchant,
        Request("POST", "/v3/x", f'{{"openid":"{OPENID}"}}'.encode()),
        read_seal(MESSAGES["as it should be"]()[0]),
        vars(PROVIDER),
    ]
    assert is_clean(repr(shown))
