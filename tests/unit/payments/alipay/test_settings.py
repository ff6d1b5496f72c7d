"""A missing or malformed key stops the start with a sentence that names it."""

from typing import Any, Final

import pytest

from app.payments.providers.alipay.settings import AlipayAccount, credentials_of
from app.payments.providers.keys import read_account
from tests.unit.payments.alipay.alipay_side import (
    APP_ID,
    SELLER_ID,
    bare,
    certificate,
    curve_root,
    key,
    pem,
    private_pem,
    public_pem,
    serial_of,
)

ROOT: Final = certificate("root", "Test Root", authority=True, serial=10)
OLD_ROOT: Final = certificate("issuer", "Old Root", authority=True, serial=2**63 + 5)
APP: Final = certificate("app", "Merchant", ("root", "Test Root"), serial=101)
ALIPAY: Final = certificate("alipay", "Alipay 2088", ("root", "Test Root"), serial=102)
NEXT: Final = certificate("next", "Alipay 2088", ("root", "Test Root"), serial=103)

KEY_MODE: Final = {
    "app_id": APP_ID,
    "seller_id": SELLER_ID,
    "private_key": private_pem("app"),
    "alipay_public_keys": [public_pem("alipay")],
}
CERTIFICATE_MODE: Final = {
    "app_id": APP_ID,
    "seller_id": SELLER_ID,
    "private_key": private_pem("app"),
    "app_certificate": pem(APP),
    "alipay_certificates": [pem(ALIPAY), pem(NEXT)],
    "alipay_root_certificate": pem(ROOT, curve_root(), OLD_ROOT),
}


def read(document: dict[str, Any]) -> tuple[AlipayAccount | None, list[str]]:
    mistakes: list[str] = []
    return read_account(document, AlipayAccount, "accounts[0]", mistakes), mistakes


def accepted(document: dict[str, Any]) -> AlipayAccount:
    account, mistakes = read(document)
    assert account is not None, mistakes
    return account


def test_keys_may_be_pem_or_bare_and_several():
    account = accepted(
        {
            **KEY_MODE,
            "private_key": bare(private_pem("app")),
            "alipay_public_keys": [bare(public_pem("alipay")), public_pem("next")],
        }
    )
    loaded = credentials_of(account)
    assert loaded.private_key.private_numbers() == key("app").private_numbers()
    assert len(loaded.keys.all) == 2
    assert loaded.request_serials == {}


def test_serials_are_counted_as_documented():
    loaded = credentials_of(accepted(CERTIFICATE_MODE))
    assert loaded.request_serials == {
        "app_cert_sn": serial_of(APP, "Test Root"),
        # The elliptic one does not count.
        "alipay_root_cert_sn": f"{serial_of(ROOT, 'Test Root')}_{serial_of(OLD_ROOT, 'Old Root')}",
    }
    assert set(loaded.keys.by_serial) == {
        serial_of(ALIPAY, "Test Root"),
        serial_of(NEXT, "Test Root"),
    }


def test_nothing_of_a_key_is_in_any_repr():
    account = accepted({**CERTIFICATE_MODE, "name": "main"})
    told = f"{account!r} {credentials_of(account)!r}"
    assert "BEGIN" not in told
    assert bare(private_pem("app"))[:40] not in told


MISTAKES: Final = [
    (KEY_MODE, "private_key", None, "private_key is missing"),
    (KEY_MODE, "private_key", "", "private_key: it is empty"),
    (KEY_MODE, "private_key", "nonsense", "private_key: it is not an unencrypted private key"),
    (KEY_MODE, "private_key", public_pem("app"), "private_key: it is not an unencrypted"),
    (KEY_MODE, "private_key", "file:/nowhere", "private_key: the file it names cannot be read"),
    (KEY_MODE, "alipay_public_keys", [], "alipay_public_keys: neither Alipay's key nor"),
    (KEY_MODE, "alipay_public_keys", None, "alipay_public_keys: neither Alipay's key nor"),
    (KEY_MODE, "alipay_public_keys", ["x"], "alipay_public_keys[0]: it is not a public key"),
    (KEY_MODE, "alipay_public_keys", [private_pem("app")], "alipay_public_keys[0]"),
    (KEY_MODE, "gateway_url", "ftp://x", "gateway_url"),
    (KEY_MODE, "gateway_url", "http://openapi.alipay.com/gateway.do", "gateway_url: a gateway"),
    (KEY_MODE, "gateway_url", "https://u:p@openapi.alipay.com/", "gateway_url: it may hold no"),
    (KEY_MODE, "seller_id", "", "seller_id"),
    (KEY_MODE, "app_id", "a b", "app_id"),
    (KEY_MODE, "sign_type", "RSA", "sign_type is not a field"),
    (KEY_MODE, "certificate_refresh_pause_ms", 0, "certificate_refresh_pause_ms: it is below"),
    (CERTIFICATE_MODE, "app_certificate", None, "certificate mode needs all three"),
    (CERTIFICATE_MODE, "alipay_certificates", [], "certificate mode needs all three"),
    (CERTIFICATE_MODE, "alipay_root_certificate", None, "certificate mode needs all three"),
    (CERTIFICATE_MODE, "alipay_root_certificate", "x", "alipay_root_certificate: it is not a"),
    (CERTIFICATE_MODE, "alipay_root_certificate", pem(curve_root()), "none of its certificates"),
    (CERTIFICATE_MODE, "app_certificate", pem(ALIPAY), "app_certificate: it is not of private_key"),
    (CERTIFICATE_MODE, "alipay_certificates", [pem(curve_root())], "alipay_certificates: not an"),
    (CERTIFICATE_MODE, "alipay_public_keys", [public_pem("alipay")], "not both"),
]


@pytest.mark.parametrize(("mode", "name", "value", "sentence"), MISTAKES)
def test_a_mistake_is_a_sentence_that_names_its_field(mode, name, value, sentence):
    document = {**mode, name: value}
    if value is None:
        del document[name]
    account, mistakes = read(document)
    assert account is None
    assert len(mistakes) == 1
    assert mistakes[0].startswith("accounts[0]")
    assert sentence in mistakes[0]
    assert not (isinstance(value, str) and len(value) > 100 and value[40:80] in mistakes[0])
