"""A notification under a certificate that is new to us: refused, asked about, then believed."""

from typing import Final

import pytest

from app.kernel.errors import BadSignature
from app.payments.provider import Outcome
from app.payments.providers.alipay.notifications import UnknownSigner
from app.payments.providers.alipay.provider import AlipayProvider
from app.payments.providers.alipay.renewal import CertificateRenewal
from tests.unit.payments.alipay.alipay_side import (
    NUMBER,
    notification_fields,
    serial_of,
    signed_form,
)
from tests.unit.payments.alipay.gateway import ALIPAY, ATTEMPT, ISSUER, NEXT, PAID, Gateway
from tests.unit.payments.alipay.test_certificates import MERCHANT, download
from tests.waiting import eventually

KNOWN: Final = serial_of(ALIPAY, "Test Issuer")
NEW: Final = serial_of(NEXT, "Test Issuer")


def is_believed(alipay: AlipayProvider, signer: str) -> bool:
    """Whether a notification that this key signed is taken for Alipay's."""
    try:
        verified = alipay.parse_notification({}, signed_form(notification_fields(), signer))
    except UnknownSigner:
        return False
    assert verified.event.about.number == NUMBER
    return True


async def test_a_notification_under_a_new_certificate_is_believed_when_it_comes_again(
    certified_alipay: AlipayProvider, gateway: Gateway
):
    gateway.reply(download(ALIPAY, ISSUER), signer="next", serial=NEW)
    gateway.reply(download(NEXT, ISSUER), signer="next", serial=NEW)
    assert not is_believed(certified_alipay, "next")
    await eventually(lambda: is_believed(certified_alipay, "next"))
    assert gateway.methods == ["download", "download"]
    assert gateway.content == {"alipay_cert_sn": NEW}
    assert is_believed(certified_alipay, "alipay")  # the old one holds beside it


async def test_a_storm_of_forgeries_is_one_question(
    certified_alipay: AlipayProvider, gateway: Gateway
):
    gateway.reply(download(ALIPAY, ISSUER), serial=KNOWN)
    gateway.reply(PAID, serial=KNOWN)
    for _ in range(100):
        assert not is_believed(certified_alipay, "stranger")
    await eventually(lambda: gateway.asked)
    assert gateway.content == {"alipay_cert_sn": KNOWN}
    for _ in range(100):
        assert not is_believed(certified_alipay, "stranger")
    assert (await certified_alipay.query(ATTEMPT)).outcome is Outcome.CONFIRMED
    assert gateway.methods == ["download", "query"]


async def test_who_answers_with_a_merchants_certificate_is_not_believed(
    certified_alipay: AlipayProvider, gateway: Gateway
):
    serial = serial_of(MERCHANT, "Test Issuer")
    gateway.reply(download(ALIPAY, ISSUER), signer="stranger", serial=serial)
    gateway.reply(download(MERCHANT, ISSUER), signer="stranger", serial=serial)
    assert not is_believed(certified_alipay, "stranger")
    await eventually(lambda: len(gateway.asked) == 2)
    gateway.reply(PAID, serial=KNOWN)
    assert (await certified_alipay.query(ATTEMPT)).outcome is Outcome.CONFIRMED
    assert not is_believed(certified_alipay, "stranger")


async def test_in_key_mode_there_is_nothing_to_ask(alipay: AlipayProvider, gateway: Gateway):
    for _ in range(3):
        assert not is_believed(alipay, "next")
    gateway.reply(PAID)
    assert (await alipay.query(ATTEMPT)).outcome is Outcome.CONFIRMED
    assert gateway.methods == ["query"]


WRONG: Final = {
    "another algorithm": {"sign_type": "RSA"},
    "no algorithm": {"sign_type": None},
}


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG)
async def test_what_no_certificate_could_have_signed_raises_no_doubt(
    certified_alipay: AlipayProvider, gateway: Gateway, changed: dict[str, str | None]
):
    forged = signed_form(notification_fields(**changed), "next")
    with pytest.raises(BadSignature) as refused:
        certified_alipay.parse_notification({}, forged)
    assert not isinstance(refused.value, UnknownSigner)
    gateway.reply(PAID, serial=KNOWN)
    assert (await certified_alipay.query(ATTEMPT)).outcome is Outcome.CONFIRMED
    assert gateway.methods == ["query"]


class Line:
    """Counts questions; the first ones find nobody at the other end."""

    def __init__(self, dead_for: int = 0) -> None:
        self._dead_for = dead_for
        self.asked = 0

    async def ask(self) -> bool:
        self.asked += 1
        return self.asked > self._dead_for


async def test_a_doubt_outlives_a_question_that_nobody_answered():
    line = Line(dead_for=1)
    renewal = CertificateRenewal(line.ask, pause_ms=1)
    renewal.doubt()
    await renewal.renew_and_rest()
    await renewal.renew_and_rest()  # nobody doubted anew
    assert line.asked == 2


async def test_a_doubt_during_the_pause_is_heard_after_it():
    line = Line()
    renewal = CertificateRenewal(line.ask, pause_ms=1)
    for _ in range(2):
        renewal.doubt()
        renewal.doubt()
        await renewal.renew_and_rest()
    assert line.asked == 2
