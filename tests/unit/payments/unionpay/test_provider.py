"""The provider against a gateway that checks our signatures and brings its own certificate."""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from app.payments.provider import (
    AttemptReference,
    ChargeRequest,
    FormAction,
    Outcome,
    ParamsAction,
    PaySnapshot,
    PayState,
    Product,
    RefundRequest,
    RefundSnapshot,
    RefundStatus,
)
from app.payments.providers.http import ProviderCalls
from app.payments.providers.keys import read_account
from app.payments.providers.unionpay.provider import UnionpayProvider, open_provider
from app.payments.providers.unionpay.settings import UnionpayAccount
from tests.fakes import FixedClock
from tests.unit.payments.unionpay.unionpay_side import (
    AUTHORITY,
    MERCHANT,
    MERCHANT_ID,
    NOW,
    NOW_MS,
    NUMBER,
    QUERY_ID,
    REFUND_NUMBER,
    ROOT,
    answer_text,
    key,
    notification_fields,
    pem,
    private_pem,
    signed,
    signed_form,
)

CALLBACK_URL: Final = "https://shop.example/v1/callbacks/unionpay"
EXPIRES_AT: Final = NOW + timedelta(minutes=10)
DOCUMENT: Final = {
    "merchant_id": MERCHANT_ID,
    "private_key": private_pem("merchant"),
    "certificate": pem(MERCHANT),
    "roots": [pem(ROOT)],
    "authorities": [pem(AUTHORITY)],
}


@dataclass
class Gateway:
    """What the gateway answers next, and what it was asked."""

    answers: list[Callable[[], web.Response]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def reply(self, *, signer: str = "unionpay", brought: str | None = None, **fields: str) -> None:
        """Answer the next request with these fields, signed."""
        told = {
            "version": "5.1.0", "encoding": "UTF-8", "signMethod": "01", "merId": MERCHANT_ID,
            "respCode": "00", "respMsg": "成功[0000000]", **fields,
        }  # fmt: skip
        self.reply_raw(answer_text(signed(told, signer, brought)))

    def reply_raw(self, raw: bytes, status: int = 200) -> None:
        self.answers.append(lambda: web.Response(body=raw, status=status))

    async def take(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        check_request(form)
        self.asked.append((request.match_info["service"], form))
        return self.answers.pop(0)()


def check_request(form: Mapping[str, str]) -> None:
    """Verify a request the way the documentation says; raises when it is not ours."""
    kept = sorted((name, value) for name, value in form.items() if name != "signature")
    assert all(value for _, value in kept)
    text = "&".join(f"{name}={value}" for name, value in kept)
    hexed = hashlib.sha256(text.encode()).hexdigest().encode()
    public = key("merchant").public_key()
    public.verify(base64.b64decode(form["signature"]), hexed, PKCS1v15(), SHA256())


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    running = Gateway()
    app = web.Application()
    app.router.add_post("/gateway/api/{service}", running.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    running.url = f"http://{host}:{port}/gateway/api"
    yield running
    await runner.cleanup()


@asynccontextmanager
async def opened(url: str, now_ms: int = NOW_MS) -> AsyncIterator[UnionpayProvider]:
    mistakes: list[str] = []
    account = read_account({**DOCUMENT, "gateway_url": url}, UnionpayAccount, "unionpay", mistakes)
    assert account is not None, mistakes
    async with ProviderCalls() as http:
        yield open_provider(account, http, FixedClock(now_ms), CALLBACK_URL)


@pytest.fixture
async def unionpay(gateway: Gateway) -> AsyncIterator[UnionpayProvider]:
    async with opened(gateway.url) as provider:
        yield provider


ATTEMPT: Final = AttemptReference(
    number=NUMBER,
    provider_number=QUERY_ID,
    amount_minor=1234,
    currency="CNY",
    created_at=NOW,
    expires_at=EXPIRES_AT,
)
REFUND: Final = RefundRequest(
    number=REFUND_NUMBER,
    attempt=ATTEMPT,
    amount_minor=500,
    currency="CNY",
    reason="late_payment",
    requested_at=NOW + timedelta(seconds=1),
)


def charge(**changed: Any) -> ChargeRequest:
    wanted: dict[str, Any] = {
        "number": NUMBER,
        "product": Product.PAGE,
        "amount_minor": 1234,
        "currency": "CNY",
        "description": "x",
        "created_at": NOW,
        "expires_at": EXPIRES_AT,
        "return_url": "https://shop.example/done?a=1&b=2",
        **changed,
    }
    return ChargeRequest(**wanted)


@pytest.mark.parametrize(
    ("product", "channel"), [(Product.PAGE, "07"), (Product.WAP, "08"), (Product.H5, "08")]
)
async def test_a_browser_posts_a_signed_form(
    unionpay: UnionpayProvider, gateway: Gateway, product: Product, channel: str
):
    result = await unionpay.create(charge(product=product))
    assert isinstance(result.value, FormAction)
    assert result.value.url == f"{gateway.url}/frontTransReq.do"
    told = dict(result.value.fields)
    check_request(told)
    del told["signature"]
    assert told == {
        "version": "5.1.0", "encoding": "UTF-8", "signMethod": "01", "txnType": "01",
        "txnSubType": "01", "bizType": "000201", "channelType": channel, "accessType": "0",
        "merId": MERCHANT_ID, "certId": "68759585097", "orderId": NUMBER,
        "txnTime": "20261122120000", "txnAmt": "1234", "currencyCode": "156",
        "payTimeout": "20261122121000", "backUrl": CALLBACK_URL,
        "frontUrl": "https://shop.example/done?a=1&b=2",
    }  # fmt: skip
    assert gateway.asked == []


async def test_an_app_gets_a_number(unionpay: UnionpayProvider, gateway: Gateway):
    gateway.reply(orderId=NUMBER, tn="611700000000000000001", reserved="{a=1&b=[2]}")
    result = await unionpay.create(charge(product=Product.APP))
    assert result.value == ParamsAction({"tn": "611700000000000000001"})
    assert gateway.asked[0][0] == "appTransReq.do"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"currency": "USD"}, "currency_not_taken"),
        ({"amount_minor": 0}, "amount_out_of_bounds"),
        ({"amount_minor": 10**12}, "amount_out_of_bounds"),
        ({"product": Product.QR}, "no_such_product"),
    ],
)
async def test_what_unionpay_can_never_take_is_not_sent(
    unionpay: UnionpayProvider, changed: dict[str, Any], code: str
):
    result = await unionpay.create(charge(**changed))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, code)


# call         respCode origRespCode -> outcome   state
CODES: Final = """
  query        00       00              confirmed paid
  query        00       A6              confirmed paid
  query        00       03              confirmed paying
  query        00       04              confirmed paying
  query        00       05              confirmed paying
  query        00       64              confirmed not_paid
  query        00       99              confirmed unknown
  query        00       -               confirmed unknown
  query        34       -               confirmed not_found
  query        11       -               rejected  -
  query        02       -               unknown   -
  query        37       -               unknown   -
  query        99       -               unknown   -
  create       03       -               unknown   -
  create       05       -               pending   -
  create       12       -               unknown   -
  create       33       -               rejected  -
  create       00       -               unknown   -
  refund       00       -               pending   processing
  refund       A6       -               pending   processing
  refund       05       -               pending   -
  refund       03       -               unknown   -
  refund       36       -               rejected  -
  refund       99       -               unknown   -
  query_refund 00       00              confirmed succeeded
  query_refund 00       05              confirmed processing
  query_refund 00       36              confirmed closed
  query_refund 00       99              confirmed unknown
  query_refund 34       -               confirmed not_found
"""


@pytest.mark.parametrize("line", CODES.strip().splitlines())
async def test_a_code_means_what_the_table_says(
    unionpay: UnionpayProvider, gateway: Gateway, line: str
):
    name, code, original, outcome, state = line.split()
    fields = {"respCode": code, "txnAmt": "1234", "currencyCode": "156", "queryId": QUERY_ID}
    if original != "-":
        fields["origRespCode"] = original
    number = REFUND_NUMBER if "refund" in name else NUMBER
    gateway.reply(orderId=number, txnTime="20261122120000", **fields)
    match name:
        case "query":
            result: Any = await unionpay.query(ATTEMPT)
        case "create":
            result = await unionpay.create(charge(product=Product.APP))
        case _:
            result = await getattr(unionpay, name)(REFUND)
    value = result.value
    shown = value.state if isinstance(value, PaySnapshot) else value and value.status
    assert (result.outcome, shown) == (outcome, None if state == "-" else state)


@pytest.mark.parametrize(
    ("codes", "is_refused", "concerns_account"),
    [
        ("11 31 32 33 43", True, True),
        ("01 10 13 30 36 61 64 77", True, False),
        ("02 03 05 06 12 37 99", False, False),
    ],
)
async def test_a_refusal_says_whether_it_is_of_the_account(
    unionpay: UnionpayProvider,
    gateway: Gateway,
    codes: str,
    is_refused: bool,  # noqa: FBT001  a column of the table
    concerns_account: bool,  # noqa: FBT001  a column of the table
):
    for code in codes.split():
        gateway.reply(orderId=NUMBER, respCode=code)
        result = await unionpay.create(charge(product=Product.APP))
        assert (result.outcome is Outcome.REJECTED) is is_refused, code
        assert result.concerns_account is concerns_account, code


async def test_a_paid_order_is_told_with_what_unionpay_knows(
    unionpay: UnionpayProvider, gateway: Gateway
):
    gateway.reply(
        orderId=NUMBER, origRespCode="00", txnAmt="1233", currencyCode="840", queryId=QUERY_ID,
        txnTime="20261122120000", traceTime="1122120004",
    )  # fmt: skip
    result = await unionpay.query(ATTEMPT)
    assert result.value == PaySnapshot(
        number=NUMBER,
        state=PayState.PAID,
        merchant_id=MERCHANT_ID,
        provider_number=QUERY_ID,
        amount_minor=1233,
        currency="",
        paid_at=datetime(2026, 11, 22, 4, 0, 4, tzinfo=UTC),
    )
    service, form = gateway.asked[0]
    assert (service, form["txnType"], form["txnTime"]) == ("queryTrans.do", "00", "20261122120000")


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, PayState.NOT_PAID), (659, PayState.NOT_PAID), (660, PayState.CLOSED)]
)
async def test_a_failed_try_is_the_end_once_the_time_is_up(
    gateway: Gateway, seconds: int, state: PayState
):
    async with opened(gateway.url, NOW_MS + seconds * 1_000) as unionpay:
        gateway.reply(orderId=NUMBER, origRespCode="64")
        result = await unionpay.query(ATTEMPT)
        assert result.value is not None
        assert result.value.state is state


NOT_UNIONPAYS: Final = {
    "nothing": b"",
    "a page": b"<html>busy</html>",
    "unsigned": answer_text({"respCode": "34", "orderId": NUMBER, "merId": MERCHANT_ID}),
    "a name twice": b"a=1&a=2",
    "a group that does not end": b"a={1&b=2",
    "no UTF-8": b"a=\xff",
}


@pytest.mark.parametrize("name", NOT_UNIONPAYS)
async def test_what_unionpay_did_not_sign_is_unknown(
    unionpay: UnionpayProvider, gateway: Gateway, name: str
):
    gateway.reply_raw(NOT_UNIONPAYS[name])
    result = await unionpay.query(ATTEMPT)
    assert (result.outcome, result.value) == (Outcome.UNKNOWN, None)


async def test_an_answer_by_another_merchants_certificate_is_unknown(
    unionpay: UnionpayProvider, gateway: Gateway
):
    gateway.reply(signer="merchant", brought=pem(MERCHANT), orderId=NUMBER, respCode="34")
    result = await unionpay.query(ATTEMPT)
    assert (result.outcome, result.code) == (Outcome.UNKNOWN, "not_signed_by_unionpay")


@pytest.mark.parametrize("changed", [{"orderId": "another"}, {"merId": "777290058110049"}])
async def test_an_answer_about_something_else_is_unknown(
    unionpay: UnionpayProvider, gateway: Gateway, changed: dict[str, str]
):
    for ask in (unionpay.query(ATTEMPT), unionpay.query_refund(REFUND), unionpay.refund(REFUND)):
        gateway.reply(**{"orderId": NUMBER, "origRespCode": "00", "txnAmt": "500", **changed})
        assert (await ask).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("status", [302, 404, 500, 503])
async def test_any_status_but_200_is_unknown(
    unionpay: UnionpayProvider, gateway: Gateway, status: int
):
    gateway.reply_raw(b"", status)
    assert (await unionpay.query(ATTEMPT)).outcome is Outcome.UNKNOWN


async def test_nobody_there_is_not_sent():
    async with opened("http://127.0.0.1:9/gateway/api") as unionpay:
        assert (await unionpay.query(ATTEMPT)).outcome is Outcome.NOT_SENT


async def test_a_refund_names_the_payment_and_its_own_time(
    unionpay: UnionpayProvider, gateway: Gateway
):
    gateway.reply(orderId=REFUND_NUMBER, txnAmt="500", queryId="q2")
    result = await unionpay.refund(REFUND)
    assert result.value == RefundSnapshot(
        number=REFUND_NUMBER,
        attempt_number=NUMBER,
        status=RefundStatus.PROCESSING,
        merchant_id=MERCHANT_ID,
        provider_number="q2",
        amount_minor=500,
        currency="CNY",
    )
    service, form = gateway.asked[0]
    assert (service, form["txnType"], form["origQryId"]) == ("backTransReq.do", "04", QUERY_ID)
    assert (form["txnTime"], form["orderId"]) == ("20261122120001", REFUND_NUMBER)
    gateway.reply(orderId=REFUND_NUMBER, txnAmt="500", origRespCode="00", queryId="q2")
    assert (await unionpay.query_refund(REFUND)).outcome is Outcome.CONFIRMED
    assert gateway.asked[1][1]["txnTime"] == "20261122120001"


async def test_only_a_whole_payment_is_undone(unionpay: UnionpayProvider, gateway: Gateway):
    result = await unionpay.undo(REFUND)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "undoes_all_or_nothing")
    whole = RefundRequest(
        number=REFUND_NUMBER, attempt=ATTEMPT, amount_minor=1234, currency="CNY",
        reason="x", requested_at=NOW,
    )  # fmt: skip
    gateway.reply(orderId=REFUND_NUMBER, txnAmt="1234")
    assert (await unionpay.undo(whole)).outcome is Outcome.PENDING
    assert gateway.asked[0][1]["txnType"] == "31"


async def test_a_refund_without_the_payments_number_is_not_sent(unionpay: UnionpayProvider):
    unknown = AttemptReference(
        number=NUMBER, provider_number=None, amount_minor=1, currency="CNY", created_at=NOW
    )
    refund = RefundRequest(
        number=REFUND_NUMBER, attempt=unknown, amount_minor=1, currency="CNY",
        reason="x", requested_at=NOW,
    )  # fmt: skip
    assert (await unionpay.refund(refund)).outcome is Outcome.NOT_SENT


async def test_closing_is_left_to_the_time_and_the_query(
    unionpay: UnionpayProvider, gateway: Gateway
):
    assert (await unionpay.close(ATTEMPT)).outcome is Outcome.UNKNOWN
    assert gateway.asked == []


async def test_a_notification_is_read_by_the_provider(unionpay: UnionpayProvider):
    raw = signed_form(notification_fields(accNo="6216***0018", payerInfo="planted"))
    kept = dict(parse_qsl(unionpay.parse_notification({}, raw).raw.decode(), strict_parsing=True))
    told = dict(parse_qsl(raw.decode(), strict_parsing=True))
    assert (kept.pop("accNo"), kept.pop("payerInfo")) == ("[cut]", "[cut]")
    assert kept == {name: told[name] for name in kept}
    assert {"signature", "orderId", "txnAmt"} <= kept.keys()
    assert unionpay.ack().status == 200


MISTAKES: Final = [
    ("merchant_id", "123", "merchant_id"),
    ("private_key", None, "private_key is missing"),
    ("private_key", private_pem("stranger"), "certificate: it is not of private_key"),
    ("certificate", "x", "certificate: it is not a certificate"),
    ("roots", None, "roots is missing"),
    ("roots", [], "roots: no certificate is set"),
    ("roots", ["x"], "roots[0]: it is not a certificate"),
    ("company_names", [], "company_names: none is set"),
    ("company_names", [""], "company_names: none is set"),
    ("gateway_url", "http://gateway.95516.com", "gateway_url: a gateway outside"),
    ("verify", False, "verify is not a field"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), MISTAKES)
def test_a_mistake_is_a_sentence_that_names_its_field(name: str, value: object, sentence: str):
    document = {**DOCUMENT, name: value}
    if value is None:
        del document[name]
    mistakes: list[str] = []
    assert read_account(document, UnionpayAccount, "unionpay", mistakes) is None
    assert len(mistakes) == 1
    assert sentence in mistakes[0]
