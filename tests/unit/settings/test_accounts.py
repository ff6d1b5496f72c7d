"""Merchant accounts in the settings: every mistake at once, and no value told."""

import base64

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.kernel.clock import SystemClock
from app.kernel.errors import BadConfiguration
from app.settings import SECRET, describe, read_settings
from app.wiring.providers import open_providers, read_accounts

KEY = rsa.generate_private_key(65_537, 2_048)
PRIVATE = base64.b64encode(
    KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
).decode()
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

WECHATPAY = {
    "mchid": "1900000001",
    "appid": "wx0123456789abcdef",
    "private_key": PRIVATE,
    "certificate_serial": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
    "api_v3_keys": ["0123456789abcdef0123456789abcdef"],
    "platform_public_key_id": "PUB_KEY_ID_0114232134912410000000000000",
    "platform_public_key": PUBLIC,
}
ALIPAY = {
    "app_id": "2021000000000001",
    "seller_id": "2088000000000001",
    "private_key": PRIVATE,
    "alipay_public_keys": [PUBLIC],
}


def _json(document):
    return msgspec.json.encode(document).decode()


def read(tmp_path, **accounts):
    environment = {
        f"DOORBUSTER_PAYMENTS__{name.upper()}": _json(value) for name, value in accounts.items()
    }
    environment.setdefault(
        "DOORBUSTER_PAYMENTS__CALLBACK_URL", "https://shop.example/v1/callbacks/"
    )
    return read_settings(environment, tmp_path)


def mistakes_of(settings):
    with pytest.raises(BadConfiguration) as refused:
        read_accounts(settings.payments)
    return refused.value.fields["settings"].split("; ")


async def test_several_accounts_of_several_providers_are_opened(tmp_path):
    settings = read(
        tmp_path,
        wechatpay=[WECHATPAY, {**WECHATPAY, "name": "second", "mchid": "1900000002"}],
        alipay=[ALIPAY],
    )
    async with open_providers(settings.payments, SystemClock()) as providers:
        told = [(one.code, one.account.name, one.account.merchant_id) for one in providers]
    assert told == [
        ("wechatpay", "", "1900000001"),
        ("wechatpay", "second", "1900000002"),
        ("alipay", "", "2088000000000001"),
    ]


def test_every_mistake_of_every_account_is_told_at_once(tmp_path):
    settings = read(
        tmp_path,
        wechatpay=[
            {**WECHATPAY, "name": "main", "private_key": "hush-one", "mchid": "hush-two"},
            {name: value for name, value in WECHATPAY.items() if name != "api_v3_keys"},
        ],
        alipay=[{**ALIPAY, "sign_type": "RSA"}],
    )
    told = mistakes_of(settings)
    first, second, other = (
        "DOORBUSTER_PAYMENTS__WECHATPAY[0] (account main)",
        "DOORBUSTER_PAYMENTS__WECHATPAY[1]",
        "DOORBUSTER_PAYMENTS__ALIPAY[0]",
    )
    assert [mistake.partition(": ")[0] for mistake in told] == [
        f"{first}.mchid",
        f"{first}.private_key",
        f"{second}.api_v3_keys is missing",
        f"{other}.sign_type is not a field",
    ]
    assert "hush" not in "".join(told)


def test_names_are_plain_and_each_once(tmp_path):
    assert mistakes_of(read(tmp_path, alipay=[ALIPAY, ALIPAY])) == [
        "DOORBUSTER_PAYMENTS__ALIPAY: two accounts have one name"
    ]
    (told,) = mistakes_of(read(tmp_path, alipay=[{**ALIPAY, "name": "a/../b"}]))
    assert told.startswith("DOORBUSTER_PAYMENTS__ALIPAY")


def test_accounts_need_the_address_of_our_callbacks(tmp_path):
    settings = read_settings({"DOORBUSTER_PAYMENTS__ALIPAY": f"[{_json(ALIPAY)}]"}, tmp_path)
    assert mistakes_of(settings) == [
        "DOORBUSTER_PAYMENTS__CALLBACK_URL is not set, and DOORBUSTER_PAYMENTS__ALIPAY needs it"
    ]


def test_no_part_of_an_account_is_ever_shown(tmp_path):
    settings = read(tmp_path, wechatpay=[WECHATPAY])
    assert dict(describe(settings))["DOORBUSTER_PAYMENTS__WECHATPAY"] == SECRET
    assert "1900000001" not in repr(settings)


def test_a_document_that_is_none_is_refused_without_its_text(tmp_path):
    with pytest.raises(BadConfiguration) as refused:
        read(tmp_path, wechatpay=["hush"])
    assert "DOORBUSTER_PAYMENTS__WECHATPAY=<secret>" in str(refused.value)
    assert "hush" not in str(refused.value)
