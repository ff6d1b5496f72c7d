"""The provider against a gateway over HTTP that signs with its own keys and checks ours."""

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from app.kernel.clock import SystemClock
from app.payments.provider import (
    AttemptReference,
    ChargeRequest,
    HttpReply,
    Outcome,
    ParamsAction,
    PaysOut,
    PayState,
    Product,
    Provider,
    QrAction,
    RedirectAction,
    RefundRequest,
    RefundStatus,
    Refusal,
    TellsBills,
    TransferRequest,
    TransferState,
)
from app.payments.providers.http import CallLimits, ProviderCalls
from app.payments.providers.wechatpay.provider import WechatpayProvider, open_provider
from app.payments.providers.wechatpay.settings import TransferWay
from tests.unit.payments.wechatpay.gateway_server import Answer, Gateway, closed_port, open_gateway
from tests.unit.payments.wechatpay.gateway_side import (
    APPID,
    MCHID,
    NUMBER,
    PUBLIC_KEY_ID,
    REFUND_NUMBER,
    TRANSACTION,
    account,
    rsa_key,
    signed_headers,
)

CALLBACK: Final = "https://shop.example/v1/callbacks/wechatpay"
OPENID: Final = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
CREATED_AT: Final = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
CHARGE: Final = ChargeRequest(
    number=NUMBER,
    product=Product.NATIVE,
    amount_minor=100,
    currency="CNY",
    description="A teapot 🫖, glazed",
    created_at=CREATED_AT,
    expires_at=CREATED_AT + timedelta(minutes=15, microseconds=700),
    return_url="https://shop.example/orders/1?paid=yes",
    payer_id=OPENID,
    client_address="203.0.113.7",
)
ATTEMPT: Final = AttemptReference(
    number=NUMBER,
    provider_number=None,
    amount_minor=100,
    currency="CNY",
    created_at=CREATED_AT,
)
REFUND: Final = RefundRequest(
    number=REFUND_NUMBER,
    attempt=ATTEMPT,
    amount_minor=40,
    currency="CNY",
    reason="late_payment",
    requested_at=CREATED_AT,
)
TRANSFER: Final = TransferRequest(
    number="P2026112200001",
    payee_id=OPENID,
    amount_minor=200_000,
    currency="CNY",
    description="Withdrawal",
    requested_at=CREATED_AT,
    payee_name="张三",
)
REFUND_ANSWER: Final = {
    "refund_id": "50000000382019052709732678859",
    "out_refund_no": REFUND_NUMBER,
    "transaction_id": "4200001234202611220000000001",
    "out_trade_no": NUMBER,
    "channel": "ORIGINAL",
    "user_received_account": "招商银行信用卡0403",
    "status": "PROCESSING",
    "amount": {
        "total": 100,
        "refund": 40,
        "payer_total": 90,
        "payer_refund": 36,
        "currency": "CNY",
    },
}


def signed(document: object, **changed: Any) -> Answer:
    return Answer(body=json.dumps(document).encode(), **changed)


def fault(status: int, code: str, **changed: Any) -> Answer:
    return signed({"code": code, "message": "text", "detail": None}, status=status, **changed)


@asynccontextmanager
async def provider_at(url: str, **changed: Any) -> AsyncIterator[WechatpayProvider]:
    document = account(**{"base_url": url, "backup_url": ""} | changed)
    async with (
        ProviderCalls(CallLimits(connect_ms=2_000, answer_ms=5_000)) as calls,
        open_provider(document, calls, SystemClock(), CALLBACK) as provider,
    ):
        yield provider


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture
async def provider(gateway: Gateway) -> AsyncIterator[WechatpayProvider]:
    async with provider_at(gateway.url) as provider:
        yield provider


def body_of(gateway: Gateway) -> dict[str, Any]:
    return json.loads(gateway.heard[-1].body)


async def test_the_port_and_what_only_some_can_do_are_there(provider: WechatpayProvider):
    port: Provider = provider
    assert (port.code, port.account.merchant_id, port.account.app_id) == ("wechatpay", MCHID, APPID)
    assert isinstance(provider, PaysOut)
    assert isinstance(provider, TellsBills)


async def test_a_native_payment_is_a_code(gateway: Gateway, provider: WechatpayProvider):
    gateway.say(signed({"code_url": "weixin://wxpay/bizpayurl?pr=abc"}))
    told = await provider.create(CHARGE)
    assert told.outcome is Outcome.CONFIRMED
    assert told.value == QrAction(
        "weixin://wxpay/bizpayurl?pr=abc", "weixin://wxpay/bizpayurl?pr=abc"
    )
    assert gateway.heard[-1].target == "/v3/pay/transactions/native"
    assert gateway.heard[-1].headers["Wechatpay-Serial"] == PUBLIC_KEY_ID
    assert body_of(gateway) == {
        "appid": APPID,
        "mchid": MCHID,
        "description": "A teapot , glazed",
        "out_trade_no": NUMBER,
        "time_expire": "2026-11-22T10:15:00+08:00",
        "notify_url": CALLBACK,
        "amount": {"total": 100, "currency": "CNY"},
    }


async def test_a_payment_inside_the_wallet_is_signed_for_it(
    gateway: Gateway, provider: WechatpayProvider
):
    gateway.say(signed({"prepay_id": "wx201410272009395522657a690389285100"}))
    told = await provider.create(replace(CHARGE, product=Product.JSAPI))
    assert isinstance(told.value, ParamsAction)
    handed = told.value.params
    assert body_of(gateway)["payer"] == {"openid": OPENID}
    assert gateway.heard[-1].target == "/v3/pay/transactions/jsapi"
    assert (handed["appId"], handed["signType"]) == (APPID, "RSA")
    assert handed["package"] == "prepay_id=wx201410272009395522657a690389285100"
    lines = (handed["appId"], handed["timeStamp"], handed["nonceStr"], handed["package"], "")
    verify_ours(handed["paySign"], "\n".join(lines))


async def test_a_payment_from_an_app_signs_the_bare_prepay_id(gateway: Gateway):
    gateway.say(signed({"prepay_id": "WX1217752501201407033233368018"}))
    async with provider_at(gateway.url, appids={Product.APP: "wxapp"}) as provider:
        told = await provider.create(replace(CHARGE, product=Product.APP))
    assert isinstance(told.value, ParamsAction)
    handed = told.value.params
    assert body_of(gateway)["appid"] == "wxapp"
    assert (handed["partnerid"], handed["package"]) == (MCHID, "Sign=WXPay")
    lines = ("wxapp", handed["timestamp"], handed["noncestr"], handed["prepayid"], "")
    verify_ours(handed["sign"], "\n".join(lines))


async def test_a_payment_from_a_phone_knows_its_way_back(
    gateway: Gateway, provider: WechatpayProvider
):
    gateway.say(signed({"h5_url": "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/x?prepay_id=1"}))
    told = await provider.create(replace(CHARGE, product=Product.H5))
    assert told.value == RedirectAction(
        "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/x?prepay_id=1"
        "&redirect_url=https%3A%2F%2Fshop.example%2Forders%2F1%3Fpaid%3Dyes"
    )
    assert body_of(gateway)["scene_info"]["payer_client_ip"] == "203.0.113.7"


def verify_ours(signature: str, text: str) -> None:
    rsa_key("merchant").public_key().verify(
        base64.b64decode(signature), text.encode(), padding.PKCS1v15(), SHA256()
    )


NEVER_SENT: Final = [
    ({"product": Product.PAGE}, "product_not_offered"),
    ({"product": Product.JSAPI, "payer_id": None}, "payer_missing"),
    ({"product": Product.H5, "client_address": None}, "client_address_missing"),
    ({"currency": "USD"}, "currency_or_amount"),
    ({"amount_minor": 0}, "currency_or_amount"),
]


@pytest.mark.parametrize(("changed", "code"), NEVER_SENT)
async def test_what_can_never_be_opened_is_not_sent(
    gateway: Gateway, provider: WechatpayProvider, changed: dict[str, Any], code: str
):
    told = await provider.create(replace(CHARGE, **changed))
    assert (told.outcome, told.code) == (Outcome.NOT_SENT, code)
    assert gateway.heard == []


# trade_state -> ours
STATES: Final = """
SUCCESS     paid
REFUND      partial_refund
NOTPAY      not_paid
USERPAYING  paying
CLOSED      closed
REVOKED     closed
PAYERROR    not_paid
NEWS        unknown
"""


@pytest.mark.parametrize("row", STATES.strip().splitlines())
async def test_every_state_of_a_payment_has_its_meaning(
    gateway: Gateway, provider: WechatpayProvider, row: str
):
    word, state = row.split()
    gateway.say(signed(TRANSACTION | {"trade_state": word}))
    told = await provider.query(ATTEMPT)
    assert told.outcome is Outcome.CONFIRMED
    assert told.value is not None
    assert told.value.state is PayState(state)
    assert OPENID.encode() not in told.raw
    assert gateway.heard[-1].target == f"/v3/pay/transactions/out-trade-no/{NUMBER}?mchid={MCHID}"


async def test_closing_is_a_204_without_a_body(gateway: Gateway, provider: WechatpayProvider):
    gateway.say(Answer(status=204))
    told = await provider.close(ATTEMPT)
    assert told.outcome is Outcome.CONFIRMED
    assert gateway.heard[-1].target == f"/v3/pay/transactions/out-trade-no/{NUMBER}/close"
    assert body_of(gateway) == {"mchid": MCHID}


async def test_a_refund_is_accepted_and_asked_about(gateway: Gateway, provider: WechatpayProvider):
    gateway.say(signed(REFUND_ANSWER), signed(REFUND_ANSWER | {"status": "SUCCESS"}))
    sent = await provider.refund(REFUND)
    assert body_of(gateway) == {
        "out_trade_no": NUMBER,
        "out_refund_no": REFUND_NUMBER,
        "reason": "late_payment",
        "notify_url": CALLBACK,
        "amount": {"refund": 40, "total": 100, "currency": "CNY"},
    }
    assert sent.value is not None
    assert (sent.value.status, sent.value.amount_minor) == (RefundStatus.PROCESSING, 40)
    asked = await provider.query_refund(REFUND)
    assert gateway.heard[-1].target == f"/v3/refund/domestic/refunds/{REFUND_NUMBER}"
    assert asked.value is not None
    assert asked.value.status is RefundStatus.SUCCEEDED
    assert "招商银行".encode() not in asked.raw
    assert b"user_received_account" not in asked.raw


async def test_an_answer_about_another_number_is_none(
    gateway: Gateway, provider: WechatpayProvider
):
    gateway.say(signed(TRANSACTION | {"out_trade_no": "SOMEBODYELSES1"}))
    assert (await provider.query(ATTEMPT)).outcome is Outcome.UNKNOWN
    gateway.say(signed(REFUND_ANSWER | {"out_refund_no": "SOMEBODYELSES1"}))
    assert (await provider.refund(REFUND)).outcome is Outcome.UNKNOWN


Ask = Callable[[WechatpayProvider], Awaitable[Any]]
ASKS: Final[dict[str, Ask]] = {
    "create": lambda provider: provider.create(CHARGE),
    "query": lambda provider: provider.query(ATTEMPT),
    "close": lambda provider: provider.close(ATTEMPT),
    "refund": lambda provider: provider.refund(REFUND),
    "query_refund": lambda provider: provider.query_refund(REFUND),
    "transfer": lambda provider: provider.transfer(replace(TRANSFER, amount_minor=29)),
    "query_transfer": lambda provider: provider.query_transfer(TRANSFER),
}
# status code                   asked -> outcome
FAULTS: Final = """
400 PARAM_ERROR             create         rejected
400 PARAM_ERROR             query          unknown
400 APPID_MCHID_NOT_MATCH   create         rejected
400 INVALID_REQUEST         create         unknown
400 INVALID_REQUEST         refund         rejected
400 INVALID_REQUEST         transfer       unknown
400 ORDER_CLOSED            create         rejected
400 ORDER_CLOSED            close          confirmed
400 MCH_NOT_EXISTS          create         rejected
404 MCH_NOT_EXISTS          create         rejected
401 SIGN_ERROR              create         rejected
401 SIGN_ERROR              query          unknown
401 SIGN_ERROR              query_refund   unknown
403 NO_AUTH                 create         rejected
403 NO_AUTH                 transfer       rejected
403 OUT_TRADE_NO_USED       create         unknown
403 RULE_LIMIT              create         rejected
403 RULE_LIMIT              transfer       unknown
403 TRADE_ERROR             create         rejected
403 TRADE_ERROR             close          rejected
403 NOT_ENOUGH              refund         unknown
403 NOT_ENOUGH              transfer       unknown
403 USER_ACCOUNT_ABNORMAL   refund         rejected
404 ORDER_NOT_EXIST         query          not_found
404 ORDER_NOT_EXIST         close          rejected
404 ORDER_NOT_EXIST         create         unknown
404 RESOURCE_NOT_EXISTS     query          unknown
404 RESOURCE_NOT_EXISTS     query_refund   not_found
404 RESOURCE_NOT_EXISTS     refund         rejected
404 NOT_FOUND               query_transfer not_found
429 FREQUENCY_LIMITED       create         unknown
429 RATELIMIT_EXCEEDED      refund         unknown
500 SYSTEM_ERROR            create         unknown
500 SYSTEM_ERROR            refund         unknown
502 SERVICE_UNAVAILABLE     query          unknown
503 SERVICE_UNAVAILABLE     close          unknown
400 ALREADY_EXISTS          transfer       unknown
403 NEWS                    create         unknown
403 NEWS                    refund         unknown
404 NEWS                    query          unknown
200 PARAM_ERROR             create         unknown
200 ORDER_NOT_EXIST         query          unknown
302 MOVED                   create         unknown
"""


@pytest.mark.parametrize("row", FAULTS.strip().splitlines())
async def test_every_refusal_comes_to_what_its_table_says(gateway: Gateway, row: str):
    status, code, asked, expected = row.split()
    gateway.say(fault(int(status), code))
    async with provider_at(gateway.url, transfer_scene_id="1000") as provider:
        told = await ASKS[asked](provider)
    if expected == "not_found":
        assert told.outcome is Outcome.CONFIRMED
        assert "NOT_FOUND" in (getattr(told.value, "state", None) or told.value.status).name
    else:
        assert told.outcome == expected


# What is no answer of WeChat Pay's, whatever it says.
UNBELIEVED: Final = {
    "unsigned success": lambda good: replace(good, is_signed=False),
    "another key's signature": lambda good: replace(good, key="stranger"),
    "an unknown serial": lambda good: replace(good, serial="PUB_KEY_ID_000"),
    "signed long ago": lambda good: replace(good, seconds_off=-301),
    "signed for another body": lambda good: replace(
        good, is_signed=False, headers=signed_headers(b"{}", timestamp=str(int(time.time())))
    ),
    "a probe": lambda good: replace(
        good,
        is_signed=False,
        headers={
            "Wechatpay-Serial": PUBLIC_KEY_ID,
            "Wechatpay-Timestamp": str(int(time.time())),
            "Wechatpay-Nonce": "n",
            "Wechatpay-Signature": "WECHATPAY/SIGNTEST/" + "A" * 325,
        },
    ),
    "signed and no JSON": lambda good: replace(good, body=b"<html>busy</html>"),
    "signed and empty": lambda good: replace(good, body=b""),
    "an HTML page of a proxy": lambda _: Answer(502, b"<html></html>", is_signed=False),
    "an empty 500": lambda _: Answer(500, b"", is_signed=False),
    "unsigned 401": lambda _: fault(401, "SIGN_ERROR", is_signed=False),
    "unsigned 404": lambda _: fault(404, "ORDER_NOT_EXIST", is_signed=False),
    "unsigned 404 of a refund": lambda _: fault(404, "RESOURCE_NOT_EXISTS", is_signed=False),
    "unsigned 403": lambda _: fault(403, "NO_AUTH", is_signed=False),
    "signed 400 without a code": lambda _: signed({}, status=400),
    "hung up": lambda _: Answer(hang_up=True),
}


@pytest.mark.parametrize("asked", ASKS)
@pytest.mark.parametrize("name", UNBELIEVED)
async def test_what_is_not_signed_is_unknown(gateway: Gateway, name: str, asked: str):
    if asked == "close" and name.startswith("signed and"):
        return  # a signed success says all there is to say of a close
    answers = {"create": {"code_url": "weixin://x"}, "query": TRANSACTION}
    good = signed(answers.get(asked, REFUND_ANSWER))
    gateway.say(UNBELIEVED[name](good))
    async with provider_at(gateway.url, transfer_scene_id="1000") as provider:
        told = await ASKS[asked](provider)
    assert (told.outcome, told.value) == (Outcome.UNKNOWN, None)


async def test_a_202_is_repeated_once_signed_anew(gateway: Gateway, provider: WechatpayProvider):
    gateway.say(Answer(status=202), signed(REFUND_ANSWER))
    told = await provider.refund(REFUND)
    assert told.outcome is Outcome.CONFIRMED
    first, second = gateway.heard
    assert (first.target, first.body) == (second.target, second.body)
    assert first.nonce != second.nonce
    gateway.say(Answer(status=202))
    assert (await provider.refund(REFUND)).outcome is Outcome.UNKNOWN


async def test_the_backup_host_is_asked_once_after_a_network_error(gateway: Gateway):
    gateway.say(Answer(hang_up=True))
    async with open_gateway() as backup, provider_at(gateway.url, backup_url=backup.url) as told_by:
        backup.say(signed({"code_url": "weixin://x"}))
        told = await told_by.create(CHARGE)
        assert told.outcome is Outcome.CONFIRMED
        assert (len(gateway.heard), len(backup.heard)) == (1, 1)
        assert gateway.heard[0].body == backup.heard[0].body
        assert gateway.heard[0].nonce != backup.heard[0].nonce
        backup.say(Answer(hang_up=True))
        assert (await told_by.create(CHARGE)).outcome is Outcome.UNKNOWN
        assert (len(gateway.heard), len(backup.heard)) == (2, 2)


async def test_an_answer_is_an_answer_and_asks_no_backup_host(gateway: Gateway):
    async with open_gateway() as backup, provider_at(gateway.url, backup_url=backup.url) as asks:
        for answer in (fault(500, "SYSTEM_ERROR"), fault(403, "NO_AUTH"), Answer(is_signed=False)):
            gateway.say(answer)
            await asks.create(CHARGE)
        assert backup.heard == []


async def test_a_gateway_that_stays_silent_is_unknown_in_time(gateway: Gateway):
    gateway.say(Answer(stay_silent=True))
    async with provider_at(gateway.url, answer_timeout_ms=200) as provider:
        assert (await provider.create(CHARGE)).outcome is Outcome.UNKNOWN


async def test_nobody_there_is_not_sent_and_one_of_two_is_unknown(gateway: Gateway):
    nobody = f"http://127.0.0.1:{await closed_port()}"
    async with provider_at(nobody, backup_url=nobody) as provider:
        assert (await provider.create(CHARGE)).outcome is Outcome.NOT_SENT
    gateway.say(Answer(hang_up=True))
    async with provider_at(gateway.url, backup_url=nobody) as provider:
        assert (await provider.create(CHARGE)).outcome is Outcome.UNKNOWN
    gateway.say(signed({"code_url": "weixin://x"}))
    async with provider_at(nobody, backup_url=gateway.url) as provider:
        assert (await provider.create(CHARGE)).outcome is Outcome.CONFIRMED


async def test_a_transfer_waits_for_its_payee(gateway: Gateway):
    begun = {
        "out_bill_no": TRANSFER.number,
        "transfer_bill_no": "1330000071100999991182020050700019480001",
        "create_time": "2026-11-22T10:00:00+08:00",
        "state": "WAIT_USER_CONFIRM",
        "package_info": "affffddafdfafddffda==",
    }
    gateway.say(signed(begun))
    async with provider_at(gateway.url, transfer_scene_id="1000") as provider:
        told = await provider.transfer(TRANSFER)
    assert told.value is not None
    assert (told.value.state, told.value.acceptance) == (
        TransferState.WAIT_USER,
        "affffddafdfafddffda==",
    )
    assert "affff" not in repr(told.value)
    sent = body_of(gateway)
    assert gateway.heard[-1].target == "/v3/fund-app/mch-transfer/transfer-bills"
    assert gateway.heard[-1].headers["Wechatpay-Serial"] == PUBLIC_KEY_ID
    assert (sent["transfer_amount"], sent["openid"]) == (200_000, OPENID)
    assert opened_name(sent["user_name"]) == "张三"


def opened_name(sealed: str) -> str:
    sha1 = SHA1()  # noqa: S303  the protocol's
    oaep = padding.OAEP(mgf=padding.MGF1(sha1), algorithm=sha1, label=None)
    return rsa_key("platform").decrypt(base64.b64decode(sealed), oaep).decode()


# What can never be sent.
NO_TRANSFERS: Final = [
    ({"amount_minor": 9}, "currency_or_amount"),
    ({"currency": "USD"}, "currency_or_amount"),
    ({"payee_name": None}, "payee_name_missing"),
    ({"payee_name": "长" * 100}, "payee_name_too_long"),
    ({"payee_id": ""}, "payee_missing"),
    ({"number": "with-dash"}, "number"),
]


@pytest.mark.parametrize(("changed", "code"), NO_TRANSFERS)
@pytest.mark.parametrize("way", TransferWay)
async def test_a_transfer_that_can_never_be_made_is_not_sent(
    gateway: Gateway, changed: dict[str, Any], code: str, way: TransferWay
):
    async with provider_at(gateway.url, transfer_scene_id="1", transfer_way=way) as provider:
        told = await provider.transfer(replace(TRANSFER, **changed))
    assert (told.outcome, told.code) == (Outcome.NOT_SENT, code)
    assert gateway.heard == []


async def test_a_small_transfer_takes_no_name_along(gateway: Gateway):
    gateway.say(fault(403, "NO_AUTH"))
    async with provider_at(gateway.url, transfer_scene_id="1") as provider:
        await provider.transfer(replace(TRANSFER, amount_minor=29))
    assert "user_name" not in body_of(gateway)


async def test_a_batch_adds_up_and_its_transfers_are_asked_about(gateway: Gateway):
    several = [replace(TRANSFER, number=f"P2026112200{n}", amount_minor=n) for n in (100, 250)]
    gateway.say(
        signed({"out_batch_no": "B20261122", "batch_id": "1", "batch_status": "ACCEPTED"}),
        signed(
            {
                "mchid": MCHID,
                "out_batch_no": "B20261122",
                "batch_id": "1",
                "appid": APPID,
                "out_detail_no": "P2026112200100",
                "detail_id": "2",
                "detail_status": "FAIL",
                "fail_reason": "ACCOUNT_FROZEN",
                "transfer_amount": 100,
                "user_name": "…",
            }
        ),
    )
    async with provider_at(
        gateway.url, transfer_scene_id="1000", transfer_way=TransferWay.BATCH
    ) as provider:
        sent = await provider.transfer_batch("B20261122", several)
        assert sent.value is not None
        assert [one.state for one in sent.value] == [TransferState.PROCESSING] * 2
        document = body_of(gateway)
        assert (document["total_amount"], document["total_num"]) == (350, 2)
        assert [opened_name(one["user_name"]) for one in document["transfer_detail_list"]] == [
            "张三",
            "张三",
        ]
        told = await provider.query_batch_transfer("B20261122", "P2026112200100")
    assert told.value is not None
    assert (told.value.state, told.value.failure) == (TransferState.FAILED, "ACCOUNT_FROZEN")
    assert (
        gateway.heard[-1].target
        == "/v3/transfer/batches/out-batch-no/B20261122/details/out-detail-no/P2026112200100"
    )


async def test_a_batch_of_one_is_a_transfer_like_any_other(gateway: Gateway):
    gateway.say(signed({"out_batch_no": TRANSFER.number, "batch_id": "1"}))
    async with provider_at(
        gateway.url, transfer_scene_id="1000", transfer_way=TransferWay.BATCH
    ) as provider:
        told = await provider.transfer(TRANSFER)
    assert told.value is not None
    assert (told.value.number, told.value.state) == (TRANSFER.number, TransferState.PROCESSING)


def test_an_acknowledgement_is_what_wechat_pay_reads():
    provider = open_provider(account(), ProviderCalls(), SystemClock(), CALLBACK)
    assert provider.ack() == HttpReply(204, "application/json", b"")
    for refusal in Refusal:
        reply = provider.ack(refusal)
        assert 400 <= reply.status < 600
        assert json.loads(reply.body) == {"code": "FAIL", "message": refusal.value}
