"""The provider against a gateway that checks our signatures and signs with keys of its own."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import pytest
from aiohttp import web

from app.payments.provider import (
    BillKind,
    Outcome,
    ParamsAction,
    PaySnapshot,
    PayState,
    Product,
    QrAction,
    RedirectAction,
    RefundSnapshot,
    RefundStatus,
    TellsBills,
)
from app.payments.providers.alipay.provider import AlipayProvider
from tests.fakes import FixedClock
from tests.unit.payments.alipay.alipay_side import (
    APP_ID,
    NOW,
    NOW_MS,
    NUMBER,
    REFUND_NUMBER,
    SELLER_ID,
    TRADE_NO,
    answer,
    notification_fields,
    signed_form,
)
from tests.unit.payments.alipay.bill_files import TRADE_BILL, packed
from tests.unit.payments.alipay.gateway import (
    ATTEMPT,
    CALLBACK_URL,
    PAID,
    PATH,
    REFUND,
    Gateway,
    account,
    charge,
    check_request,
    open_account,
    refused,
)

# product -> method                product_code
CARRIED: Final = """
  page       alipay.trade.page.pay FAST_INSTANT_TRADE_PAY
  wap        alipay.trade.wap.pay  QUICK_WAP_WAY
  h5         alipay.trade.wap.pay  QUICK_WAP_WAY
  app        alipay.trade.app.pay  QUICK_MSECURITY_PAY
"""


@pytest.mark.parametrize("line", CARRIED.strip().splitlines())
async def test_the_shopper_carries_a_signed_request(
    alipay: AlipayProvider, gateway: Gateway, line: str
):
    product, method, product_code = line.split()
    result = await alipay.create(charge(Product(product)))
    assert result.outcome is Outcome.CONFIRMED
    if isinstance(result.value, ParamsAction):
        carried = result.value.params["order_string"]
    else:
        assert isinstance(result.value, RedirectAction)
        assert result.value.url.startswith(f"{gateway.url}{PATH}?")
        carried = urlsplit(result.value.url).query
    told = dict(parse_qsl(carried, strict_parsing=True))
    check_request(told)
    assert (told["method"], told["app_id"]) == (method, APP_ID)
    assert (told["notify_url"], told["timestamp"]) == (CALLBACK_URL, "2026-11-22 12:00:00")
    assert told["return_url"] == "https://shop.example/done?order=1&x=é"
    gateway.asked.append(told)
    assert gateway.content == {
        "out_trade_no": NUMBER,
        "total_amount": "12.34",
        "subject": "Order 1 2 a b 一件",
        "product_code": product_code,
        "time_expire": "2026-11-22 12:10:30",
    }


async def test_a_code_to_scan_lives_no_longer_than_the_units_are_held(
    alipay: AlipayProvider, gateway: Gateway
):
    gateway.reply(
        {"code": "10000", "out_trade_no": NUMBER, "qr_code": "https://qr.alipay.com/b"},
        escaped=True,
    )
    result = await alipay.create(charge(Product.QR))
    assert result.value == QrAction("https://qr.alipay.com/b", "https://qr.alipay.com/b")
    assert gateway.content["product_code"] == "QR_CODE_OFFLINE"
    assert gateway.content["qr_code_timeout_express"] == "10m"
    assert "return_url" not in gateway.asked[-1]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"currency": "USD"}, "currency_not_taken"),
        ({"amount_minor": 0}, "amount_out_of_bounds"),
        ({"amount_minor": 10_000_000_001}, "amount_out_of_bounds"),
        ({"product": Product.JSAPI}, "no_such_product"),
    ],
)
async def test_what_alipay_can_never_take_is_not_sent(
    alipay: AlipayProvider, gateway: Gateway, changed: dict[str, Any], code: str
):
    result = await alipay.create(charge(**{"product": Product.QR, **changed}))
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, code)
    assert gateway.asked == []


async def test_a_paid_trade_is_told_under_our_own_account(alipay: AlipayProvider, gateway: Gateway):
    gateway.reply(PAID)
    result = await alipay.query(ATTEMPT)
    assert result.outcome is Outcome.CONFIRMED
    assert result.value == PaySnapshot(
        number=NUMBER,
        state=PayState.PAID,
        merchant_id=SELLER_ID,
        app_id=APP_ID,
        provider_number=TRADE_NO,
        amount_minor=1234,
        currency="CNY",
        paid_at=datetime(2026, 11, 22, 4, 0, 4, tzinfo=UTC),
    )
    assert result.raw.startswith(b'{"code":"10000"')
    assert "2088000000000003" not in f"{result!r}"


async def test_an_amount_written_as_a_number_is_read_by_its_digits(
    alipay: AlipayProvider, gateway: Gateway
):
    gateway.reply(
        b'{"code":"10000","out_trade_no":"%s","trade_no":"t","trade_status":'
        b'"TRADE_SUCCESS","total_amount":12.34}' % NUMBER.encode()
    )
    result = await alipay.query(ATTEMPT)
    assert result.value is not None
    assert result.value.amount_minor == 1234


# call         code   sub_code                          -> outcome    state
ERRORS: Final = """
  query        40004  ACQ.TRADE_NOT_EXIST                  confirmed  not_found
  query        40004  ACQ.SYSTEM_ERROR                     unknown    -
  query        20000  isp.unknow-error                     unknown    -
  query        20000  aop.unknow-error                     unknown    -
  query        40005  isv.app-call-limited                 unknown    -
  query        40004  ACQ.INVALID_PARAMETER                rejected   -
  query        40002  isv.invalid-app-id                   rejected   -
  query        40001  isv.missing-method                   rejected   -
  query        40006  isv.insufficient-isv-permissions     rejected   -
  query        20001  aop.invalid-auth-token               rejected   -
  query        40002  isp.unknow-error                     unknown    -
  query        10003  -                                    pending    paying
  query        40004  ACQ.SOMETHING_NEW                    unknown    -
  query        40004  -                                    unknown    -
  query        77777  -                                    unknown    -
  create       40004  ACQ.TOTAL_FEE_EXCEED                 rejected   -
  create       40004  ACQ.ACCESS_FORBIDDEN                 rejected   -
  create       40004  ACQ.TRADE_HAS_SUCCESS                unknown    -
  create       40004  ACQ.CONTEXT_INCONSISTENT             unknown    -
  create       40004  ACQ.TRADE_HAS_CLOSE                  rejected   -
  create       40004  ACQ.SYSTEM_ERROR                     unknown    -
  create       40004  ACQ.SOMETHING_NEW                    unknown    -
  close        40004  ACQ.TRADE_NOT_EXIST                  unknown    -
  close        40004  ACQ.REASON_TRADE_STATUS_INVALID      unknown    -
  close        40004  ACQ.REASON_ILLEGAL_STATUS            unknown    -
  close        40004  ACQ.TRADE_STATUS_ERROR               unknown    -
  close        40004  ACQ.INVALID_PARAMETER                rejected   -
  cancel       40004  ACQ.SYSTEM_ERROR                     unknown    -
  cancel       40004  ACQ.SELLER_BALANCE_NOT_ENOUGH        unknown    -
  refund       40004  ACQ.SELLER_BALANCE_NOT_ENOUGH        rejected   -
  refund       40004  ACQ.DISCORDANT_REPEAT_REQUEST        rejected   -
  refund       40004  ACQ.REFUND_AMT_NOT_EQUAL_TOTAL       rejected   -
  refund       40004  ACQ.TRADE_HAS_FINISHED               rejected   -
  refund       40004  ACQ.TRADE_HAS_CLOSE                  rejected   -
  refund       40004  ACQ.SYSTEM_ERROR                     unknown    -
  refund       40004  aop.ACQ.SYSTEM_ERROR                 unknown    -
  refund       40004  ACQ.SOMETHING_NEW                    unknown    -
  refund       20000  isp.unknow-error                     unknown    -
  query_refund 40004  ACQ.TRADE_NOT_EXIST                  confirmed  not_found
  query_refund 40004  ACQ.SYSTEM_ERROR                     unknown    -
"""


@pytest.mark.parametrize("line", ERRORS.strip().splitlines())
async def test_a_refusal_means_what_the_table_says(
    alipay: AlipayProvider, gateway: Gateway, line: str
):
    name, code, sub_code, outcome, state = line.split()
    told = refused(sub_code, code)
    if sub_code == "-":
        del told["sub_code"]
    gateway.reply(told)
    result = await call(alipay, name)
    value = result.value
    shown = "-"
    if isinstance(value, PaySnapshot):
        shown = value.state
    elif isinstance(value, RefundSnapshot):
        shown = value.status
    assert (result.outcome, shown) == (outcome, state)
    assert code in result.code


# code  sub_code                            concerns
ACCOUNT_ERRORS: Final = """
  40004 ACQ.ACCESS_FORBIDDEN                the-account
  40004 ACQ.BEYOND_PAY_RESTRICTION          the-account
  40004 ACQ.BEYOND_PER_RECEIPT_RESTRICTION  the-account
  40004 ACQ.MERCHANT_AGREEMENT_INVALID      the-account
  40004 ACQ.MERCHANT_AGREEMENT_NOT_EXIST    the-account
  40004 ACQ.PARTNER_ERROR                   the-account
  40004 ACQ.SELLER_BEEN_BLOCKED             the-account
  40004 ACQ.SELLER_NOT_EXIST                the-account
  40004 ACQ.SUB_MERCHANT_CREATE_FAIL        the-account
  40006 isv.insufficient-isv-permissions    the-account
  20001 aop.invalid-auth-token              the-account
  40002 isv.invalid-app-id                  the-account
  40002 isv.invalid-signature               the-account
  40002 isv.invalid-parameter               the-request
  40001 isv.missing-method                  the-request
  40004 ACQ.TOTAL_FEE_EXCEED                the-request
  40004 ACQ.INVALID_PARAMETER               the-request
  40004 ACQ.BUYER_SELLER_EQUAL              the-request
  40004 ACQ.TRADE_HAS_CLOSE                 the-request
  40004 ACQ.SYSTEM_ERROR                    nobody
  40004 ACQ.TRADE_HAS_SUCCESS               nobody
  40004 ACQ.SOMETHING_NEW                   nobody
  40005 isv.app-call-limited                nobody
  20000 isp.unknow-error                    nobody
"""


@pytest.mark.parametrize("line", ACCOUNT_ERRORS.strip().splitlines())
async def test_a_refusal_says_whether_it_is_of_the_account(
    alipay: AlipayProvider, gateway: Gateway, line: str
):
    code, sub_code, concerns = line.split()
    gateway.reply(refused(sub_code, code))
    result = await alipay.create(charge(Product.QR))
    assert (result.outcome is Outcome.REJECTED) is (concerns != "nobody")
    assert result.concerns_account is (concerns == "the-account")


async def call(alipay: AlipayProvider, name: str) -> Any:
    match name:
        case "create":
            return await alipay.create(charge(Product.QR))
        case "refund" | "query_refund":
            return await getattr(alipay, name)(REFUND)
        case _:
            return await getattr(alipay, name)(ATTEMPT)


QUERY: Final = "alipay.trade.query"
NOT_ALIPAYS: Final = {
    "unsigned": b'{"alipay_trade_query_response":{"code":"10000","trade_status":"TRADE_CLOSED"}}',
    "an unsigned refusal": b'{"alipay_trade_query_response":{"code":"40004",'
    b'"sub_code":"ACQ.TRADE_NOT_EXIST"}}',
    "an unsigned error": b'{"error_response":{"code":"40002","sub_code":"isv.invalid-app-id"}}',
    "signed by us": answer(QUERY, b'{"code":"10000"}', signer="app"),
    "signed by a stranger": answer(QUERY, b'{"code":"10000"}', signer="stranger"),
    "an answer to another question": answer("alipay.trade.close", b'{"code":"10000"}'),
    "no object": b"success",
    "a page": b"<html>busy</html>",
    "nothing": b"",
    "signed, and no document": answer(QUERY, b"{]"),
    "signed, without a code": answer(QUERY, b"{}"),
    "signed, a code of another type": answer(QUERY, b'{"code":10000}'),
    "signed, without a number": answer(QUERY, b'{"code":"10000","trade_status":"TRADE_CLOSED"}'),
}


@pytest.mark.parametrize("name", NOT_ALIPAYS)
async def test_what_alipay_did_not_sign_is_unknown(
    alipay: AlipayProvider, gateway: Gateway, name: str
):
    gateway.reply_raw(NOT_ALIPAYS[name])
    result = await alipay.query(ATTEMPT)
    assert (result.outcome, result.value) == (Outcome.UNKNOWN, None)


@pytest.mark.parametrize("status", [201, 204, 302, 400, 403, 404, 429, 500, 502, 503])
async def test_any_status_but_200_is_unknown(alipay: AlipayProvider, gateway: Gateway, status: int):
    gateway.reply_raw(web.Response(status=status, headers={"Location": "/gateway.do"}))
    result = await alipay.query(ATTEMPT)
    assert (result.outcome, result.code) == (Outcome.UNKNOWN, f"status_{status}")
    assert len(gateway.asked) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"out_trade_no": "another"},
        {"total_amount": "1e3"},
        {"total_amount": True},
        {"total_amount": "-12.34"},
        {"send_pay_date": "soon"},
        {"trade_status": None},
        {"trade_no": 7},
    ],
)
async def test_a_signed_answer_that_cannot_be_so_is_unknown(
    alipay: AlipayProvider, gateway: Gateway, changed: dict[str, object]
):
    gateway.reply({**PAID, **changed})
    result = await alipay.query(ATTEMPT)
    assert (result.outcome, result.value) == (Outcome.UNKNOWN, None)


async def test_a_new_status_is_told_as_unknown(alipay: AlipayProvider, gateway: Gateway):
    gateway.reply({**PAID, "trade_status": "TRADE_PAUSED"})
    result = await alipay.query(ATTEMPT)
    assert result.value is not None
    assert result.value.state is PayState.UNKNOWN


async def test_nobody_there_is_not_sent():
    async with open_account(account("http://127.0.0.1:9/gateway.do")) as alipay:
        assert (await alipay.query(ATTEMPT)).outcome is Outcome.NOT_SENT
        assert (await alipay.close(ATTEMPT)).outcome is Outcome.NOT_SENT


async def test_an_answer_cut_off_is_unknown():
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"alipay_trade_query_response":')
        assert request.transport is not None
        request.transport.close()
        return response

    app = web.Application()
    app.router.add_post(PATH, cut)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with open_account(account(f"http://127.0.0.1:{port}{PATH}")) as other:
        assert (await other.query(ATTEMPT)).outcome is Outcome.UNKNOWN
    await runner.cleanup()


async def test_a_closed_trade_is_confirmed(alipay: AlipayProvider, gateway: Gateway):
    gateway.reply({"code": "10000", "out_trade_no": NUMBER, "trade_no": TRADE_NO})
    assert (await alipay.close(ATTEMPT)).outcome is Outcome.CONFIRMED
    assert gateway.content == {"out_trade_no": NUMBER}


@pytest.mark.parametrize(
    ("told", "outcome", "action"),
    [
        ({"retry_flag": "N", "action": "close"}, Outcome.CONFIRMED, "close"),
        ({"retry_flag": "N", "action": "refund"}, Outcome.CONFIRMED, "refund"),
        ({"retry_flag": "Y"}, Outcome.PENDING, None),
    ],
)
async def test_a_cancellation_says_what_it_did(
    alipay: AlipayProvider, gateway: Gateway, told: dict[str, str], outcome: Outcome, action
):
    gateway.reply({"code": "10000", "out_trade_no": NUMBER, **told})
    result = await alipay.cancel(ATTEMPT)
    assert result.outcome is outcome
    assert result.value is not None
    assert result.value.action == action


REFUNDED: Final = {
    "code": "10000",
    "out_trade_no": NUMBER,
    "trade_no": TRADE_NO,
    "refund_fee": "5.00",
    "fund_change": "Y",
}


# fund_change refund_fee out_trade_no -> outcome   status
REFUNDS: Final = """
  Y           5.00       ours            confirmed succeeded
  Y           12.34      ours            confirmed succeeded
  Y           4.99       ours            unknown   -
  Y           5.001      ours            unknown   -
  Y           5.00       another         unknown   -
  N           5.00       ours            pending   -
  -           5.00       ours            pending   -
  y           5.00       ours            pending   -
"""


@pytest.mark.parametrize("line", REFUNDS.strip().splitlines())
async def test_only_a_change_of_funds_is_a_refund(
    alipay: AlipayProvider, gateway: Gateway, line: str
):
    changed, total, number, outcome, status = line.split()
    told = {**REFUNDED, "fund_change": changed, "refund_fee": total}
    if changed == "-":
        del told["fund_change"]
    if number == "another":
        told["out_trade_no"] = number
    gateway.reply(told)
    result = await alipay.refund(REFUND)
    assert (result.outcome, result.value and result.value.status) == (
        outcome,
        None if status == "-" else status,
    )
    assert gateway.content == {
        "out_trade_no": NUMBER,
        "out_request_no": REFUND_NUMBER,
        "refund_amount": "5.00",
        "refund_reason": "late_payment",
    }


async def test_a_refund_is_told_with_its_own_amount(alipay: AlipayProvider, gateway: Gateway):
    gateway.reply({**REFUNDED, "refund_fee": "12.34"})  # cumulative
    result = await alipay.refund(REFUND)
    assert result.value == RefundSnapshot(
        number=REFUND_NUMBER,
        attempt_number=NUMBER,
        status=RefundStatus.SUCCEEDED,
        merchant_id=SELLER_ID,
        provider_number=TRADE_NO,
        amount_minor=500,
        currency="CNY",
    )


REFUND_TOLD: Final = {
    "code": "10000",
    "out_trade_no": NUMBER,
    "trade_no": TRADE_NO,
    "out_request_no": REFUND_NUMBER,
    "refund_amount": "5.00",
    "refund_status": "REFUND_SUCCESS",
}


@pytest.mark.parametrize(
    ("told", "outcome", "status"),
    [
        (REFUND_TOLD, Outcome.CONFIRMED, RefundStatus.SUCCEEDED),
        ({"code": "10000", "msg": "Success"}, Outcome.CONFIRMED, RefundStatus.NOT_FOUND),
        ({**REFUND_TOLD, "refund_status": None}, Outcome.CONFIRMED, RefundStatus.NOT_FOUND),
        ({**REFUND_TOLD, "refund_status": "PERHAPS"}, Outcome.CONFIRMED, RefundStatus.UNKNOWN),
        ({**REFUND_TOLD, "out_request_no": "another"}, Outcome.UNKNOWN, None),
        ({**REFUND_TOLD, "out_trade_no": "another"}, Outcome.UNKNOWN, None),
        ({**REFUND_TOLD, "refund_amount": "5.0.0"}, Outcome.UNKNOWN, None),
    ],
)
async def test_a_refund_is_there_when_its_status_is(
    alipay: AlipayProvider, gateway: Gateway, told, outcome, status
):
    gateway.reply(told)
    result = await alipay.query_refund(REFUND)
    assert (result.outcome, result.value and result.value.status) == (outcome, status)


async def test_a_notification_needs_no_gateway(alipay: AlipayProvider):
    raw = signed_form(notification_fields())
    verified = alipay.parse_notification({"Content-Type": "x"}, raw)
    assert verified.event.provider == "alipay"
    assert alipay.ack().body == b"success"


PERSONS: Final = {
    "buyer_id": "2088000000000003",
    "buyer_logon_id": "pla***@example.com",
    "buyer_open_id": "074a1CcTG1LelxKe4xQC0zgNdId0nxi95b5lsNpazWYoCo5",
    "fund_bill_list": '[{"amount":"12.34","fundChannel":"PLANTEDBANK"}]',
    "passback_params": "planted%3Dann",
    "something_new": "planted name",
}


async def test_what_is_kept_of_a_notification_names_no_payer(alipay: AlipayProvider):
    fields = notification_fields(**PERSONS)
    raw = signed_form(fields)
    kept = dict(parse_qsl(alipay.parse_notification({}, raw).raw.decode(), strict_parsing=True))
    for name in PERSONS:
        assert kept.pop(name) == "[cut]"
    told = dict(parse_qsl(raw.decode(), strict_parsing=True))
    assert kept == {name: told[name] for name in kept}
    assert {"sign", "out_trade_no", "total_amount", "trade_status", "notify_id"} <= kept.keys()
    # Whoever brings what was cut can still prove what Alipay signed.
    whole = urlencode({**kept, **PERSONS}).encode()
    assert alipay.parse_notification({}, whole).event.about.number == NUMBER


async def test_what_is_kept_of_a_transfers_notification_names_no_payee(alipay: AlipayProvider):
    content = msgspec.json.encode(
        {
            "out_biz_no": "T1",
            "status": "SUCCESS",
            "product_code": "TRANS_ACCOUNT_NO_PWD",
            "biz_scene": "DIRECT_TRANSFER",
            "trans_amount": "1.00",
            "receiver_open_id": "planted-payee",
        }
    ).decode()
    fields = {
        "app_id": APP_ID,
        "charset": "UTF-8",
        "sign_type": "RSA2",
        "msg_method": "alipay.fund.trans.order.changed",
        "notify_id": "n1",
        "utc_timestamp": str(NOW_MS),
        "biz_content": content,
    }
    verified = alipay.parse_notification({}, signed_form(fields))
    assert b"planted" not in verified.raw
    kept = dict(parse_qsl(verified.raw.decode(), strict_parsing=True))
    assert msgspec.json.decode(kept["biz_content"])["trans_amount"] == "1.00"


DAY: Final = date(2026, 11, 21)


async def test_a_bill_is_fetched_where_the_answer_says(alipay: AlipayProvider, gateway: Gateway):
    assert isinstance(alipay, TellsBills)
    gateway.files["b.zip"] = packed(TRADE_BILL)
    gateway.reply({"code": "10000", "bill_download_url": f"{gateway.url}/bills/b.zip?t=1"})
    result = await alipay.bill(DAY, BillKind.TRADE)
    assert result.outcome is Outcome.CONFIRMED
    assert result.value is not None
    assert len(result.value.lines) == 3
    assert gateway.content == {"bill_type": "trade", "bill_date": "2026-11-21"}


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("https://evil.example/b.zip", Outcome.NOT_SENT),
        ("http://dwbillcenter.alipay.com/b.zip", Outcome.NOT_SENT),
        ("https://dwbillcenter.alipay.com.evil.example/b.zip", Outcome.NOT_SENT),
        ("https://dwbillcenter.alipay.com@evil.example/b.zip", Outcome.NOT_SENT),
        ("http://127.0.0.1:9/b.zip", Outcome.NOT_SENT),
        ("file:///etc/passwd", Outcome.NOT_SENT),
        ("{gateway}/bills/gone.zip", Outcome.UNKNOWN),
        ("{gateway}/bills/no.zip", Outcome.UNKNOWN),
    ],
)
async def test_a_bill_comes_from_its_own_host_or_not_at_all(
    alipay: AlipayProvider, gateway: Gateway, url: str, outcome: Outcome
):
    gateway.files["no.zip"] = b"<html>expired</html>"
    told = url.replace("{gateway}", gateway.url)
    gateway.reply({"code": "10000", "bill_download_url": told})
    result = await alipay.bill(DAY, BillKind.TRADE)
    assert (result.outcome, result.value) == (outcome, None)


@pytest.mark.parametrize(
    ("sub_code", "hours", "outcome"),
    [
        ("isp.bill_not_exist", 0, Outcome.CONFIRMED),
        ("NO_BILL_DATA", 0, Outcome.CONFIRMED),
        ("BILL_NOT_EXIST", -3, Outcome.PENDING),
        ("isv.app-call-limited", 0, Outcome.UNKNOWN),
    ],
)
async def test_no_bill_is_a_day_without_money_once_bills_are_out(
    gateway: Gateway, sub_code: str, hours: int, outcome: Outcome
):
    clock = FixedClock(NOW_MS + hours * 3_600_000)  # noon of the next day in Beijing
    async with open_account(account(gateway.url + PATH), clock) as alipay:
        gateway.reply(refused(sub_code))
        result = await alipay.bill(DAY, BillKind.TRADE)
        assert result.outcome is outcome
        if outcome is Outcome.CONFIRMED:
            assert result.value is not None
            assert list(result.value.lines) == []


def test_the_clock_of_these_tests_is_noon_in_beijing():
    assert NOW + timedelta(hours=8) == datetime(2026, 11, 22, 12, tzinfo=UTC)
