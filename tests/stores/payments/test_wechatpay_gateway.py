"""WeChat Pay from both sides: our provider against the gateway that speaks its protocol."""

from datetime import timedelta

import pytest

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
from app.sandbox.numbers import BEIJING
from tests.stores.payments.both_sides import (
    NUMBER,
    PRICE_MINOR,
    STRANGERS,
    both_sides,
)
from tests.waiting import eventually


@pytest.fixture
async def sides(tmp_path):
    async with both_sides(tmp_path, "wechatpay") as opened:
        yield opened


async def state(sides, number=NUMBER):
    told = await sides.provider.query(sides.attempt(number))
    assert told.outcome is Outcome.CONFIRMED, told
    return told.value.state


async def test_a_payment_through_its_life(sides):
    assert await state(sides) is PayState.NOT_FOUND
    created = await sides.provider.create(sides.charge())
    assert isinstance(created.value, QrAction)
    assert created.value.text == f"{sides.gateway_url}/pay/{NUMBER}"
    assert (await sides.provider.create(sides.charge())).value == created.value
    changed = await sides.provider.create(sides.charge(amount_minor=1))
    assert (changed.value, changed.code) == (None, "OUT_TRADE_NO_USED")
    assert await state(sides) is PayState.NOT_PAID

    await sides.play(outcome="pay")
    await eventually(lambda: len(sides.heard) == 1)
    [paid] = sides.events()
    asked = await sides.provider.query(sides.attempt())
    assert paid == asked.value
    assert (paid.state, paid.amount_minor, paid.currency) == (PayState.PAID, PRICE_MINOR, "CNY")
    assert (paid.merchant_id, paid.app_id) == ("1900000109", "wxdoorbuster000001")
    assert (await sides.provider.close(sides.attempt())).outcome is not Outcome.CONFIRMED


async def test_an_unpaid_payment_is_closed_and_takes_no_money_after(sides):
    await sides.provider.create(sides.charge())
    assert (await sides.provider.close(sides.attempt())).outcome is Outcome.CONFIRMED
    assert (await sides.provider.close(sides.attempt())).outcome is Outcome.CONFIRMED
    assert await state(sides) is PayState.CLOSED


@pytest.mark.parametrize("product", [Product.JSAPI, Product.APP])
async def test_the_wallet_takes_what_the_provider_signed(sides, product):
    payer = {"payer_id": "oShopper"} if product is Product.JSAPI else {}
    created = await sides.provider.create(sides.charge(product=product, **payer))
    assert isinstance(created.value, ParamsAction)
    wallet = f"{sides.gateway_url}/wallet/wechatpay"
    params = dict(created.value.params)
    async with sides.client.post(wallet, json=params, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"][-28:]) == (303, NUMBER)
    name = "timeStamp" if product is Product.JSAPI else "timestamp"
    params[name] = str(int(params[name]) + 1)
    async with sides.client.post(wallet, json=params, allow_redirects=False) as response:
        assert response.status == 403


async def test_a_browser_of_a_telephone_is_sent_to_the_page(sides):
    charge = sides.charge(product=Product.H5, client_address="203.0.113.7")
    created = await sides.provider.create(charge)
    assert isinstance(created.value, RedirectAction)
    async with sides.client.get(created.value.url) as response:
        assert "88.80 CNY" in await response.text()


async def paid(sides):
    await sides.provider.create(sides.charge())
    await sides.play(outcome="pay", callback="never")


async def test_refunds_end_and_are_told(sides):
    await paid(sides)
    first = await sides.provider.refund(sides.refund(1, 80))
    assert first.value.status is RefundStatus.PROCESSING
    assert (await sides.provider.refund(sides.refund(1, 80))).value == first.value
    assert (await sides.provider.refund(sides.refund(1, 81))).outcome is not Outcome.CONFIRMED
    assert (await sides.provider.refund(sides.refund(2))).outcome is not Outcome.CONFIRMED
    sides.clock.advance(100)
    asked = await sides.provider.query_refund(sides.refund(1, 80))
    assert asked.value.status is RefundStatus.SUCCEEDED
    assert await state(sides) is PayState.PARTIAL_REFUND
    await eventually(lambda: len(sides.heard) == 1)
    [told] = sides.events()
    assert (told.number, told.status, told.amount_minor) == (
        asked.value.number,
        RefundStatus.SUCCEEDED,
        80,
    )
    missing = await sides.provider.query_refund(sides.refund(9))
    assert missing.value.status is RefundStatus.NOT_FOUND


@pytest.mark.parametrize("ending", [RefundStatus.ABNORMAL, RefundStatus.CLOSED])
async def test_a_refund_ends_badly_when_it_is_told_to(sides, ending):
    await paid(sides)
    await sides.play(script={"refund": ending.value})
    await sides.provider.refund(sides.refund())
    sides.clock.advance(100)
    assert (await sides.provider.query_refund(sides.refund())).value.status is ending
    await eventually(lambda: [one.status for one in sides.events()] == [ending])


async def test_a_refund_is_held_until_somebody_ends_it(sides):
    await paid(sides)
    await sides.play(script={"refund": "held"})
    await sides.provider.refund(sides.refund())
    sides.clock.advance(3_600_000)
    asked = await sides.provider.query_refund(sides.refund())
    assert asked.value.status is RefundStatus.PROCESSING
    assert await sides.end("refunds", sides.refund().number, "succeed") == 202
    await eventually(lambda: [one.status for one in sides.events()] == [RefundStatus.SUCCEEDED])


async def test_an_answer_is_lost_after_the_work_is_done(sides):
    assert await sides.play(script={"lost_answers": {"create": 1}}) == 202
    first = await sides.provider.create(sides.charge())
    assert first.outcome is Outcome.UNKNOWN
    assert await state(sides) is PayState.NOT_PAID
    assert (await sides.provider.create(sides.charge())).outcome is Outcome.CONFIRMED


@pytest.mark.parametrize("callback", ["forged", "probe"])
async def test_what_the_platform_has_not_signed_is_refused(sides, callback):
    await sides.provider.create(sides.charge())
    await sides.play(outcome="pay", callback=callback)
    await eventually(lambda: len(sides.refused()) == 1)
    if callback == "probe":
        await eventually(lambda: len(sides.events()) == 1)
        assert await state(sides) is PayState.PAID
    else:
        assert await state(sides) is PayState.NOT_PAID


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ({"amount_minor": PRICE_MINOR - 1}, {"amount_minor": PRICE_MINOR - 1}),
        ({"merchant_id": "1900000999"}, {"merchant_id": "1900000999"}),
        ({"app_id": "wxother"}, {"app_id": ""}),
    ],
)
async def test_a_lie_is_signed_and_changes_nothing_at_the_gateway(sides, lie, told):
    await sides.provider.create(sides.charge())
    await sides.play(outcome="pay", **lie)
    await eventually(lambda: len(sides.heard) == 1)
    [event] = sides.events()
    assert {name: getattr(event, name) for name in told} == told
    assert await state(sides) is PayState.NOT_PAID


async def test_a_callback_is_repeated_with_a_fresh_signature(sides):
    sides.refuse_times = 2
    await sides.provider.create(sides.charge())
    await sides.play(outcome="pay")
    await eventually(lambda: len(sides.heard) == 3)
    assert len({one.event.notification_id for one in sides.heard}) == 1
    assert len({one.headers["Wechatpay-Nonce"] for one in sides.heard}) == 3


async def test_both_kinds_of_platform_keys_are_believed(tmp_path):
    key_only = {"platform_certificates": False}
    async with both_sides(tmp_path, "wechatpay", key_only) as sides:
        assert (await sides.provider.create(sides.charge())).outcome is Outcome.CONFIRMED
    certificates = {"platform_public_key_id": "", "platform_public_key": None}
    async with both_sides(tmp_path / "other", "wechatpay", certificates) as sides:

        async def created():
            told = await sides.provider.create(sides.charge())
            return told.outcome is Outcome.CONFIRMED

        await eventually(created)


async def test_nobody_else_is_let_in(tmp_path):
    stranger = {"private_key": STRANGERS.wechatpay_merchant.private_key}
    async with both_sides(tmp_path, "wechatpay", stranger) as sides:
        told = await sides.provider.create(sides.charge())
        assert told.outcome is Outcome.UNKNOWN, "unsigned: it proves nothing"
        assert await sides.play(outcome="pay") == 404


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": 'WECHATPAY2-SHA256-RSA2048 mchid="1900000109"'},
        {
            "Authorization": 'WECHATPAY2-SHA256-RSA2048 mchid="1900000109",nonce_str="n",'
            'signature="AA==",timestamp="1",serial_no="00"'
        },
    ],
)
async def test_an_unsigned_question_gets_an_unsigned_no(sides, headers):
    url = f"{sides.gateway_url}/v3/pay/transactions/out-trade-no/{NUMBER}?mchid=1900000109"
    async with sides.client.get(url, headers=headers) as response:
        assert response.status == 401
        assert (await response.json())["code"] == "SIGN_ERROR"
        assert "Wechatpay-Signature" not in response.headers


async def test_money_is_sent_once_the_payee_has_accepted_it(sides):
    begun = await sides.provider.transfer(sides.transfer())
    assert begun.value.state is TransferState.WAIT_USER
    sides.clock.advance(100)
    asked = await sides.provider.query_transfer(sides.transfer())
    assert (asked.value.state, asked.value.amount_minor) == (TransferState.SUCCEEDED, 5_000)
    await eventually(lambda: [one.state for one in sides.events()] == [TransferState.SUCCEEDED])
    missing = await sides.provider.query_transfer(sides.transfer("T0000404"))
    assert missing.value.state is TransferState.NOT_FOUND


async def test_a_transfer_fails_when_it_is_told_to(sides):
    await sides.play("T0000002", script={"transfer": "fail"})
    await sides.provider.transfer(sides.transfer("T0000002"))
    sides.clock.advance(100)
    asked = await sides.provider.query_transfer(sides.transfer("T0000002"))
    assert asked.value.state is TransferState.FAILED
    assert asked.value.failure


async def test_money_goes_out_in_a_batch(tmp_path):
    async with both_sides(tmp_path, "wechatpay", {"transfer_way": "batch"}) as sides:
        begun = await sides.provider.transfer(sides.transfer())
        assert begun.outcome in (Outcome.CONFIRMED, Outcome.PENDING), begun
        sides.clock.advance(100)
        asked = await sides.provider.query_transfer(sides.transfer())
        assert (asked.value.state, asked.value.amount_minor) == (TransferState.SUCCEEDED, 5_000)


async def bill(sides, kind):
    day = (instant(sides.clock.now_ms()) - timedelta(days=1)).astimezone(BEIJING).date()
    told = await sides.provider.bill(day, kind)
    assert told.outcome is Outcome.CONFIRMED, told
    return told.value.lines


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
    sides.clock.advance(86_400_000)
    lines = await bill(sides, BillKind.TRADE)
    told = [one.amount_minor for one in lines if one.kind is BillLineKind.PAYMENT]
    assert told == amounts
    assert {one.number for one in lines if one.kind is BillLineKind.PAYMENT} >= (
        {NUMBER} if play != "missing" else set()
    )


async def test_a_bill_lists_refunds_and_fees(sides):
    await paid(sides)
    await sides.provider.refund(sides.refund(1, 1_000))
    sides.clock.advance(86_400_000)
    trade = await bill(sides, BillKind.TRADE)
    assert [(one.kind, one.amount_minor) for one in trade] == [
        (BillLineKind.PAYMENT, PRICE_MINOR),
        (BillLineKind.REFUND, -1_000),
    ]
    fund = await bill(sides, BillKind.FUND)
    assert sum(one.amount_minor for one in fund) == PRICE_MINOR - 1_000 - 53 + 6
