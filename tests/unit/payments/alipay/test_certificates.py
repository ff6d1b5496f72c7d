"""Certificate mode: whose certificate signed, and which new one is believed."""

import base64
from typing import Any, Final

import pytest

from app.payments.provider import (
    Outcome,
)
from app.payments.providers.alipay.provider import AlipayProvider
from tests.fakes import FixedClock
from tests.unit.payments.alipay.alipay_side import (
    NOW_MS,
    certificate,
    pem,
    serial_of,
)
from tests.unit.payments.alipay.gateway import (
    ALIPAY,
    APP,
    ATTEMPT,
    ISSUER,
    NEXT,
    PAID,
    PATH,
    ROOT,
    Gateway,
    certified,
    open_account,
)


async def test_certificate_mode_names_both_certificates(
    certified_alipay: AlipayProvider, gateway: Gateway
):
    gateway.reply(PAID, serial=serial_of(ALIPAY, "Test Issuer"))
    assert (await certified_alipay.query(ATTEMPT)).outcome is Outcome.CONFIRMED
    assert gateway.asked[-1]["app_cert_sn"] == serial_of(APP, "Test Issuer")
    assert gateway.asked[-1]["alipay_root_cert_sn"] == serial_of(ROOT, "Test Root")


def download(*certificates: Any) -> dict[str, str]:
    return {
        "code": "10000",
        "alipay_cert_content": base64.b64encode(pem(*certificates).encode()).decode(),
    }


async def test_a_new_certificate_of_alipays_is_fetched_and_kept(
    certified_alipay: AlipayProvider, gateway: Gateway
):
    serial = serial_of(NEXT, "Test Issuer")
    gateway.reply(PAID, signer="next", serial=serial)
    gateway.reply(download(NEXT, ISSUER), signer="next", serial=serial)
    gateway.reply(PAID, signer="next", serial=serial)
    assert (await certified_alipay.query(ATTEMPT)).outcome is Outcome.CONFIRMED
    assert gateway.content == {"alipay_cert_sn": serial}
    assert (await certified_alipay.query(ATTEMPT)).outcome is Outcome.CONFIRMED
    assert gateway.methods == ["query", "download", "query"]


STRANGER: Final = certificate("stranger", "Alipay 2088", serial=104)
MERCHANT: Final = certificate("stranger", "Other", ("issuer", "Test Issuer"), serial=105)
EXPIRED: Final = certificate(
    "stranger", "Alipay 2088", ("issuer", "Test Issuer"), serial=106, days=0
)
SELF_MADE: Final = certificate("stranger", "Test Issuer", authority=True, serial=107)
UNDER_SELF_MADE: Final = certificate(
    "stranger", "Alipay 2088", ("stranger", "Test Issuer"), serial=108
)
UNDER_A_MERCHANT: Final = certificate("stranger", "Alipay 2088", ("app", "Merchant"), serial=109)


@pytest.mark.parametrize(
    ("named", "issuer", "sent"),
    [
        (STRANGER, "Alipay 2088", [STRANGER]),
        (MERCHANT, "Test Issuer", [MERCHANT, ISSUER]),
        (EXPIRED, "Test Issuer", [EXPIRED, ISSUER]),
        (UNDER_SELF_MADE, "Test Issuer", [UNDER_SELF_MADE, SELF_MADE]),
        (UNDER_A_MERCHANT, "Merchant", [UNDER_A_MERCHANT, APP, ISSUER]),
        (MERCHANT, "Test Issuer", [NEXT, ISSUER]),
    ],
    ids=["self-signed", "merchant", "expired", "self-made issuer", "merchant issues", "other"],
)
async def test_a_certificate_that_is_not_alipays_is_not_believed(
    certified_alipay: AlipayProvider, gateway: Gateway, named, issuer, sent
):
    serial = serial_of(named, issuer)
    gateway.reply(PAID, signer="stranger", serial=serial)
    gateway.reply(download(*sent), signer="stranger", serial=serial)
    assert (await certified_alipay.query(ATTEMPT)).outcome is Outcome.UNKNOWN


async def test_unknown_certificates_cause_one_download_in_a_minute(gateway: Gateway):
    clock = FixedClock(NOW_MS)
    async with open_account(certified(gateway.url + PATH), clock) as alipay:
        for _ in range(3):
            gateway.reply(PAID, signer="stranger", serial="0" * 32)
        gateway.answers.insert(1, lambda _: b"{}")
        for _ in range(3):
            assert (await alipay.query(ATTEMPT)).outcome is Outcome.UNKNOWN
        assert len(gateway.asked) == 4
        clock.advance(60_000)
        gateway.reply(PAID, signer="next", serial=serial_of(NEXT, "Test Issuer"))
        gateway.reply(download(NEXT, ISSUER), signer="next")
        assert (await alipay.query(ATTEMPT)).outcome is Outcome.CONFIRMED
