"""Alipay from both sides: our provider against the gateway that speaks its protocol."""

import zipfile
from datetime import timedelta
from urllib.parse import parse_qsl

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import (
    CertificateBuilder,
    load_pem_x509_certificate,
    random_serial_number,
)
from structlog.testing import capture_logs

from app.kernel.clock import instant
from app.payments.provider import (
    BillKind,
    BillLineKind,
    Outcome,
    ParamsAction,
    PayState,
    Product,
    QrAction,
    RedirectAction,
    RefundStatus,
    TransferState,
)
from app.payments.providers.alipay.notifications import UnknownSigner
from app.sandbox.alipay.archive import pack_gbk
from app.sandbox.alipay.merchants import AlipayMerchant
from app.sandbox.numbers import BEIJING
from tests.stores.payments.both_sides import (
    KEYS,
    NUMBER,
    PRICE_MINOR,
    STRANGERS,
    both_sides,
)
from tests.waiting import eventually

KEY_MODE = {
    "alipay_public_keys": [KEYS.alipay_gateway.public_key],
    "app_certificate": None,
    "alipay_certificates": [],
    "alipay_root_certificate": None,
}


@pytest.fixture
async def sides(tmp_path):
    async with both_sides(tmp_path, "alipay") as opened:
        yield opened


async def state(sides, number=NUMBER):
    told = await sides.provider.query(sides.attempt(number))
    assert told.outcome is Outcome.CONFIRMED, told
    return told.value.state


def code(sides, **changes):
    return sides.charge(product=Product.QR, **changes)


async def test_a_code_is_no_trade_until_somebody_scans_it(sides):
    created = await sides.provider.create(code(sides))
    assert isinstance(created.value, QrAction)
    assert created.value.text == f"{sides.gateway_url}/pay/{NUMBER}"
    assert await state(sides) is PayState.NOT_FOUND
    assert (await sides.provider.close(sides.attempt())).outcome is Outcome.UNKNOWN
    await sides.play(outcome="scan")
    assert await state(sides) is PayState.NOT_PAID
    assert (await sides.provider.close(sides.attempt())).outcome is Outcome.CONFIRMED
    assert await state(sides) is PayState.CLOSED


async def test_a_payment_is_told_and_can_be_asked_about(sides):
    await sides.provider.create(code(sides))
    await sides.play(outcome="pay")
    await eventually(lambda: len(sides.heard) == 1)
    [paid] = sides.events()
    asked = (await sides.provider.query(sides.attempt())).value
    assert (paid.state, paid.amount_minor) == (PayState.PAID, PRICE_MINOR)
    assert (paid.merchant_id, paid.app_id) == ("2088000000000109", "2021000000000109")
    assert (asked.state, asked.provider_number) == (PayState.PAID, paid.provider_number)
    assert (await sides.provider.close(sides.attempt())).outcome is not Outcome.CONFIRMED


@pytest.mark.parametrize("product", [Product.PAGE, Product.WAP])
async def test_a_browser_carries_the_payment_to_its_page(sides, product):
    created = await sides.provider.create(sides.charge(product=product))
    assert isinstance(created.value, RedirectAction)
    async with sides.client.get(created.value.url) as response:
        assert response.url.path == f"/pay/{NUMBER}"
        assert "88.80 CNY" in await response.text()
    assert await state(sides) is PayState.NOT_PAID


async def test_an_app_carries_the_payment_to_the_wallet(sides):
    created = await sides.provider.create(sides.charge(product=Product.APP))
    assert isinstance(created.value, ParamsAction)
    form = dict(parse_qsl(created.value.params["order_string"], keep_blank_values=True))
    async with sides.client.post(f"{sides.gateway_url}/gateway.do", data=form) as response:
        assert response.url.path == f"/pay/{NUMBER}"
    form["biz_content"] = form["biz_content"].replace("88.80", "0.01")
    async with sides.client.post(f"{sides.gateway_url}/gateway.do", data=form) as response:
        text = await response.text()
    assert "isv.invalid-signature" in text
    assert '"sign"' not in text


async def paid(sides):
    await sides.provider.create(code(sides))
    await sides.play(outcome="pay", callback="never")


async def test_refunds_arrive_at_once_and_the_trade_is_told_again(sides):
    await paid(sides)
    first = await sides.provider.refund(sides.refund(1, 80))
    assert first.value.status is RefundStatus.SUCCEEDED
    again = await sides.provider.refund(sides.refund(1, 80))
    assert again.outcome in (Outcome.CONFIRMED, Outcome.PENDING)
    assert (await sides.provider.refund(sides.refund(1, 81))).outcome is not Outcome.CONFIRMED
    assert (await sides.provider.refund(sides.refund(2))).outcome is not Outcome.CONFIRMED
    asked = await sides.provider.query_refund(sides.refund(1, 80))
    assert (asked.value.status, asked.value.amount_minor) == (RefundStatus.SUCCEEDED, 80)
    rest = await sides.provider.refund(sides.refund(2, PRICE_MINOR - 80))
    assert rest.value.status is RefundStatus.SUCCEEDED
    assert await state(sides) in (PayState.REFUNDED, PayState.PARTIAL_REFUND)
    await eventually(lambda: len(sides.heard) == 2)
    assert sides.refused() == []


async def test_a_refund_is_held_until_somebody_ends_it(sides):
    await paid(sides)
    await sides.play(script={"refund": "held"})
    begun = await sides.provider.refund(sides.refund())
    assert begun.outcome is not Outcome.REJECTED
    asked = await sides.provider.query_refund(sides.refund())
    assert asked.value.status is not RefundStatus.SUCCEEDED
    assert await sides.end("refunds", sides.refund().number, "succeed") == 202
    asked = await sides.provider.query_refund(sides.refund())
    assert asked.value.status is RefundStatus.SUCCEEDED


async def test_an_answer_is_lost_after_the_work_is_done(sides):
    await paid(sides)
    await sides.play(script={"lost_answers": {"refund": 1}})
    assert (await sides.provider.refund(sides.refund())).outcome is Outcome.UNKNOWN
    asked = await sides.provider.query_refund(sides.refund())
    assert asked.value.status is RefundStatus.SUCCEEDED


@pytest.mark.parametrize("callback", ["forged", "probe"])
async def test_what_alipay_has_not_signed_is_refused(sides, callback):
    await sides.provider.create(code(sides))
    await sides.play(outcome="pay", callback=callback)
    await eventually(lambda: len(sides.refused()) == 1)
    if callback == "probe":
        await eventually(lambda: len(sides.events()) == 1)
        assert await state(sides) is PayState.PAID
    else:
        assert await state(sides) is PayState.NOT_FOUND


async def test_old_news_comes_after_new(sides):
    await sides.provider.create(code(sides))
    await sides.play(outcome="scan")
    await sides.play(outcome="pay", callback="out_of_order")
    await eventually(lambda: len(sides.heard) == 2)
    states = {one.state for one in sides.events()}
    assert states == {PayState.PAID, PayState.NOT_PAID}


async def test_a_callback_is_repeated_until_it_says_success(sides):
    sides.refuse_times = 1
    await sides.provider.create(code(sides))
    await sides.play(outcome="pay")
    await eventually(lambda: len(sides.heard) == 2)
    assert len({one.event.notification_id for one in sides.heard}) == 1


async def test_what_was_not_delivered_is_dropped_when_its_merchant_is_gone(tmp_path):
    async with both_sides(tmp_path, "alipay") as sides:
        await sides.provider.create(code(sides))
        await sides.play(outcome="pay", delay_ms=60_000)
    with capture_logs() as logs:
        async with both_sides(tmp_path, "wechatpay", alipay=()) as sides:
            assert await sides.play(outcome="pay") == 202, "it is remembered, and told to nobody"
            told = await sides.provider.create(sides.charge("0123456789ABCDEFGHJKMNPQRS02"))
            assert told.outcome is Outcome.CONFIRMED, "the others go on"
    assert [one["event"] for one in logs].count("callback_dropped") == 1


async def test_the_two_modes_of_keys(tmp_path):
    merchant = KEYS.alipay_merchant_document()
    plain = {
        "app_id": merchant["app_id"],
        "seller_id": merchant["seller_id"],
        "private_key": merchant["private_key"],
        "app_public_key": KEYS.alipay_app.public_key,
    }
    async with both_sides(
        tmp_path, "alipay", KEY_MODE, alipay=(msgspec.convert(plain, AlipayMerchant),)
    ) as sides:
        assert (await sides.provider.create(code(sides))).outcome is Outcome.CONFIRMED
        await sides.play(outcome="pay")
        await eventually(lambda: [one.state for one in sides.events()] == [PayState.PAID])
        refused = await sides.provider.transfer(sides.transfer())
        assert refused.outcome is not Outcome.CONFIRMED, "money goes out by certificate alone"


async def test_nobody_else_is_let_in(tmp_path):
    stranger = KEY_MODE | {"private_key": STRANGERS.alipay_app.private_key}
    async with both_sides(tmp_path, "alipay", stranger) as sides:
        told = await sides.provider.create(code(sides))
        assert told.outcome is Outcome.UNKNOWN, "unsigned: it proves nothing"
        assert await sides.play(outcome="pay") == 404


async def test_money_is_sent(sides):
    sent = await sides.provider.transfer(sides.transfer())
    assert sent.value.state is TransferState.SUCCEEDED, sent
    asked = await sides.provider.query_transfer(sides.transfer())
    assert (asked.value.state, asked.value.amount_minor) == (TransferState.SUCCEEDED, 5_000)
    missing = await sides.provider.query_transfer(sides.transfer("T0000404"))
    assert missing.value.state is TransferState.NOT_FOUND


@pytest.mark.parametrize(
    ("play", "amounts"),
    [
        ("agree", [PRICE_MINOR]),
        ("missing", []),
        ("other_amount", [PRICE_MINOR + 1]),
        ("extra", [PRICE_MINOR, PRICE_MINOR]),
    ],
)
async def test_a_bill_says_what_it_is_told_to_say(sides, play, amounts):
    await paid(sides)
    await sides.play(script={"bill": play})
    day = instant(sides.clock.now_ms()).astimezone(BEIJING).date()
    sides.clock.advance(2 * 86_400_000)
    told = await sides.provider.bill(day, BillKind.TRADE)
    assert told.outcome is Outcome.CONFIRMED, told
    lines = [one for one in told.value.lines if one.kind is BillLineKind.PAYMENT]
    assert [one.amount_minor for one in lines] == amounts


async def test_a_bill_lists_refunds(sides):
    await paid(sides)
    await sides.provider.refund(sides.refund(1, 1_000))
    day = (instant(sides.clock.now_ms())).astimezone(BEIJING).date()
    sides.clock.advance(int(timedelta(days=2) / timedelta(milliseconds=1)))
    told = await sides.provider.bill(day, BillKind.TRADE)
    payment, refund = told.value.lines[:2]
    assert (payment.amount_minor, refund.amount_minor) == (PRICE_MINOR, -1_000)
    assert refund.number == sides.refund(1).number


def test_names_in_a_package_are_gbk_and_nothing_says_so(tmp_path):
    path = tmp_path / "bill.zip"
    path.write_bytes(pack_gbk({"业务明细.csv": "金额\r\n".encode("gbk") * 100, "b.csv": b""}))
    with zipfile.ZipFile(path, metadata_encoding="gbk") as package:
        assert package.testzip() is None
        assert package.namelist() == ["业务明细.csv", "b.csv"]
        assert package.read("业务明细.csv").decode("gbk").startswith("金额")
        assert all(one.flag_bits & 0x800 == 0 for one in package.infolist())


def under_a_new_certificate() -> AlipayMerchant:
    """The app as the gateway knows it once Alipay signs with another certificate of its name."""
    old = load_pem_x509_certificate(KEYS.alipay_gateway.certificate.encode())
    issuer_key = load_pem_private_key(KEYS.alipay_root.private_key.encode(), password=None)
    assert isinstance(issuer_key, rsa.RSAPrivateKey)
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    new = (
        CertificateBuilder(old.issuer, old.subject, key.public_key(), random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
        .sign(issuer_key, SHA256())
    )
    private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    document = KEYS.alipay_merchant_document() | {
        "private_key": private_key.decode(),
        "alipay_certificate": new.public_bytes(Encoding.PEM).decode(),
    }
    return msgspec.convert(document, AlipayMerchant)


async def test_a_payment_told_under_a_new_certificate_is_believed_at_a_later_try(tmp_path):
    async with both_sides(tmp_path, "alipay", alipay=(under_a_new_certificate(),)) as sides:
        created = await sides.provider.create(sides.charge(product=Product.PAGE))
        assert isinstance(created.value, RedirectAction)
        async with sides.client.get(created.value.url) as response:
            assert response.status == 200  # no answer of Alipay's has named its certificate yet
        await sides.play(outcome="pay")
        await eventually(sides.events)
        [paid] = sides.events()
        assert (paid.state, paid.amount_minor) == (PayState.PAID, PRICE_MINOR)
        assert isinstance(sides.heard[0], UnknownSigner)
        assert await state(sides) is PayState.PAID
