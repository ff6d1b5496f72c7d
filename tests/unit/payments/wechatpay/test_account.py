"""What an operator may write of an account, and the sentence that stops the start otherwise."""

from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.payments.provider import Product
from app.payments.providers.keys import read_account
from app.payments.providers.wechatpay.settings import WechatpayAccount
from tests.unit.payments.wechatpay.gateway_side import (
    API_KEY,
    APPID,
    MCHID,
    PUBLIC_KEY_ID,
    account,
    certificate_pem,
    private_pem,
    public_pem,
)

APP_APPID: Final = "wx00000000000000aa"


def document(**changed: object) -> dict[str, Any]:
    fields = {
        "mchid": MCHID,
        "appid": APPID,
        "private_key": private_pem("merchant"),
        "certificate_serial": "444f4864ea9b34415a1b2c3d4e5f60718293a4b5",
        "api_v3_keys": [API_KEY],
        "platform_public_key_id": PUBLIC_KEY_ID,
        "platform_public_key": public_pem("platform"),
    } | changed
    return {name: value for name, value in fields.items() if value is not None}


def mistakes_of(**changed: object) -> list[str]:
    mistakes: list[str] = []
    read = read_account(document(**changed), WechatpayAccount, "ACCOUNTS[0]", mistakes)
    assert (read is None) == bool(mistakes)
    return mistakes


def weak_pem() -> str:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)  # noqa: S505  refused
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def curve_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_a_whole_document_is_an_account_and_shows_no_key():
    mistakes: list[str] = []
    read = read_account(document(), WechatpayAccount, "ACCOUNTS[0]", mistakes)
    assert mistakes == []
    assert read.merchant.serial == "444F4864EA9B34415A1B2C3D4E5F60718293A4B5"
    assert read.api_keys == (API_KEY.encode(),)
    assert list(read.platform_keys) == [PUBLIC_KEY_ID]
    shown = f"{read!r} {read.merchant!r} {read.private_key!r} {read.api_v3_keys!r}"
    assert "PRIVATE" not in shown
    assert API_KEY not in shown


def test_keys_may_lie_in_files(tmp_path: Path):
    (tmp_path / "key.pem").write_text(private_pem("merchant"))
    assert mistakes_of(private_key=f"file:{tmp_path}/key.pem") == []
    assert mistakes_of(private_key=f"file:{tmp_path}/none.pem") != []


def test_a_public_key_may_be_told_by_a_certificate():
    pem = certificate_pem("platform", serial=0x5157F09EFDC096DE).decode()
    assert mistakes_of(platform_public_key=pem) == []


def test_certificates_alone_are_enough():
    alone = {"platform_public_key_id": None, "platform_public_key": None}
    assert mistakes_of(**alone, platform_certificates=True) == []
    assert mistakes_of(**alone) != []


# What is wrong, and the field that the sentence must name.
WRONG: Final[dict[str, tuple[dict[str, object], str]]] = {
    "no mchid": ({"mchid": None}, "mchid"),
    "mchid no number": ({"mchid": "mch"}, "mchid"),
    "no appid": ({"appid": None}, "appid"),
    "no private key": ({"private_key": None}, "private_key"),
    "empty private key": ({"private_key": ""}, "private_key"),
    "private key no PEM": ({"private_key": "hunter2"}, "private_key"),
    "private key cut": ({"private_key": private_pem("merchant")[:200]}, "private_key"),
    "a public key as private": ({"private_key": public_pem("merchant")}, "private_key"),
    "weak private key": ({"private_key": weak_pem()}, "private_key"),
    "curve private key": ({"private_key": curve_pem()}, "private_key"),
    "no serial": ({"certificate_serial": None}, "certificate_serial"),
    "serial no hex": ({"certificate_serial": "serial-number"}, "certificate_serial"),
    "no API key": ({"api_v3_keys": []}, "api_v3_keys"),
    "empty API key": ({"api_v3_keys": [""]}, "api_v3_keys"),
    "API key of 31 bytes": ({"api_v3_keys": ["k" * 31]}, "api_v3_keys"),
    "second API key too long": ({"api_v3_keys": [API_KEY, "k" * 33]}, "api_v3_keys"),
    "no key of theirs": ({"platform_public_key": None}, "platform_public_key"),
    "key of theirs without id": ({"platform_public_key_id": None}, "platform_public_key_id"),
    "id of another kind": ({"platform_public_key_id": "5157F0"}, "platform_public_key_id"),
    "key of theirs no PEM": ({"platform_public_key": "x"}, "platform_public_key"),
    "unknown field": ({"mch_id": MCHID}, "mch_id"),
    "base URL no URL": ({"base_url": "api.mch.weixin.qq.com"}, "base_url"),
    "base URL without TLS": ({"base_url": "http://api.mch.weixin.qq.com"}, "base_url"),
    "base URL with a password": ({"base_url": "https://a:b@api.mch.weixin.qq.com"}, "base_url"),
    "base URL with a slash": ({"base_url": "https://api.mch.weixin.qq.com/"}, "base_url"),
    "backup URL no URL": ({"backup_url": "backup"}, "backup_url"),
    "an app for no product": ({"appids": {"page": APPID}}, "appids"),
    "refresh too often": ({"certificate_refresh_ms": 59_999}, "certificate_refresh_ms"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_missing_or_malformed_is_named(name: str):
    changed, field = WRONG[name]
    told = mistakes_of(**changed)
    assert any(field in sentence for sentence in told), told
    for value in changed.values():
        if isinstance(value, str) and len(value) > 8:
            assert all(value not in sentence for sentence in told)


# trade type, app -> the account's app, or none
APPS = f"""
NATIVE  {APPID}      ours
APP     {APP_APPID}  ours
APP     {APPID}      none
JSAPI   {APP_APPID}  none
-       {APP_APPID}  ours
-       {APPID}      ours
-       wx1          none
MWEB    {APPID}      ours
"""


@pytest.mark.parametrize("row", APPS.strip().splitlines())
def test_a_product_may_have_an_app_of_its_own(row: str):
    trade_type, appid, expected = row.split()
    ours = account(appids={Product.APP: APP_APPID})
    told = ours.told_app("" if trade_type == "-" else trade_type, appid)
    assert told == (APPID if expected == "ours" else "")
