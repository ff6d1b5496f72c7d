"""A day's bill: unpacked, hashed, added up and read; a bill that does not fit is none."""

import gzip
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.clock import SystemClock
from app.payments.provider import Bill, BillKind, BillLineKind, MalformedMessage, Outcome
from app.payments.providers.http import ProviderCalls
from app.payments.providers.wechatpay.bills import FundAccount, UnreadableBill, read_bill
from app.payments.providers.wechatpay.provider import WechatpayProvider, open_provider
from tests.unit.payments.wechatpay.gateway_server import Answer, Gateway, open_gateway
from tests.unit.payments.wechatpay.gateway_side import account
from tests.unit.payments.wechatpay.test_provider import fault, signed

DAY: Final = date(2026, 11, 21)
PAYMENT: Final = "0123456789ABCDEFGHJKMNPQRS01"
TRADE_HEAD: Final = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,"
    "付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,"
    "退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
TRADE_SUM_HEAD: Final = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
)
FUND_HEAD: Final = (
    "记账时间,微信支付业务单号,资金流水单号,业务名称,业务类型,收支类型,收支金额(元),账户结余(元),"
    "资金变更提交申请人,备注,业务凭证号"
)
FUND_SUM_HEAD: Final = "资金流水总笔数,收入笔数,收入金额,支出笔数,支出金额"


def ticked(*values: str) -> str:
    return ",".join(f"`{value}" for value in values)


# 90.00 settled of an order over 100.00: a coupon paid the rest.
PAID_ROW: Final = ticked(
    "2026-11-21 09:10:11", "wxd678efh567hg6787", "1900000109", "0", "", "4200001", PAYMENT, "oUp",
    "NATIVE", "SUCCESS", "CMC", "CNY", "90.00", "10.00", "0", "0", "0.00", "0.00", "", "",
    "Teapot, glazed", "", "0.53000", "0.60%", "100.00", "0.00", "",
)  # fmt: skip
REFUND_ROW: Final = ticked(
    "2026-11-21 12:00:00", "wxd678efh567hg6787", "1900000109", "0", "", "4200001", PAYMENT, "oUp",
    "NATIVE", "REFUND", "CMC", "CNY", "0.00", "0.00", "5030001", f"R{PAYMENT}A01", "36.00", "0.00",
    "ORIGINAL", "PROCESSING", "Teapot, glazed", "", "-0.21000", "0.60%", "0.00", "40.00", "",
)  # fmt: skip
TRADE_SUMS: Final = ticked("2", "90.00", "36.00", "0.00", "0.32000", "100.00", "40.00")
TRADE: Final = [TRADE_HEAD, PAID_ROW, REFUND_ROW, TRADE_SUM_HEAD, TRADE_SUMS]


def fund_row(kind: str, direction: str, yuan: str, voucher: str = PAYMENT) -> str:
    return ticked(
        "2026-11-21 09:10:11", "4200001", "flow-1", kind, kind, direction, yuan, "1000.00",
        "system", "", voucher,
    )  # fmt: skip


FUND: Final = [
    FUND_HEAD,
    fund_row("交易", "收入", "100.00"),
    fund_row("扣除交易手续费", "支出", "0.53"),
    fund_row("退款", "支出", "40.00", f"R{PAYMENT}A01"),
    fund_row("扣除交易手续费", "收入", "0.21"),
    fund_row("提现", "支出", "50.00", "0"),
    fund_row("充值", "收入", "1.00", ""),
    fund_row("商家转账", "支出", "2.00", "P1"),
    fund_row("节日补贴", "收入", "3.00", ""),
    FUND_SUM_HEAD,
    ticked("8", "4", "104.21", "4", "92.53"),
]


def file_of(lines: list[str], *, newline: str = "\r\n", mark: str = "\ufeff") -> bytes:
    return (mark + newline.join(lines) + newline).encode()


def read(raw: bytes, kind: BillKind = BillKind.TRADE) -> Bill:
    return read_bill(kind, DAY, raw, sha1_of(raw))


def sha1_of(raw: bytes) -> str:
    return hashlib.sha1(raw).hexdigest()  # noqa: S324  the protocol's own choice


def test_a_trade_bill_is_read_in_fen_with_the_sign_of_our_account():
    bill = read(file_of(TRADE))
    payment, refund = bill.lines
    assert (payment.kind, payment.number, payment.provider_number) == (
        BillLineKind.PAYMENT,
        PAYMENT,
        "4200001",
    )
    assert (payment.amount_minor, payment.fee_minor, payment.currency) == (10_000, -53, "CNY")
    assert payment.happened_at == datetime(2026, 11, 21, 1, 10, 11, tzinfo=UTC)
    assert payment.raw["商品名称"] == "Teapot, glazed"
    assert (refund.kind, refund.number, refund.provider_number) == (
        BillLineKind.REFUND,
        f"R{PAYMENT}A01",
        "5030001",
    )
    assert (refund.amount_minor, refund.fee_minor) == (-4_000, 21)
    assert refund.related_provider_number == "4200001"


def test_a_fund_bill_tells_what_moved_and_an_unknown_word_still_moved_money():
    lines = read(file_of(FUND), BillKind.FUND).lines
    assert [(line.kind.value, line.amount_minor, line.number) for line in lines] == [
        ("payment", 10_000, PAYMENT),
        ("fee", -53, PAYMENT),
        ("refund", -4_000, f"R{PAYMENT}A01"),
        ("fee_return", 21, PAYMENT),
        ("withdrawal", -5_000, ""),
        ("top_up", 100, ""),
        ("transfer", -200, "P1"),
        ("other", 300, ""),
    ]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_marks_and_newlines_do_not_matter(mark: str, newline: str):
    assert len(read(file_of(TRADE, newline=newline, mark=mark)).lines) == 2


def test_columns_are_found_by_name_wherever_they_stand():
    names = TRADE_HEAD.split(",")
    order = sorted(range(len(names)), key=lambda place: names[place])

    def turned(row: str) -> str:
        values = row[1:].split(",`")
        return ticked(*(values[place] for place in order), "news")

    head = ",".join([*(names[place] for place in order), "新栏目"])
    lines = [head, turned(PAID_ROW), turned(REFUND_ROW), TRADE_SUM_HEAD, TRADE_SUMS]
    assert [line.amount_minor for line in read(file_of(lines)).lines] == [10_000, -4_000]


def test_an_older_bill_without_order_amounts_is_read_by_what_was_settled():
    def cut(line: str, ticks: str) -> str:
        return ticks + (",`" if ticks else ",").join(
            line.removeprefix("`").split(",`" if ticks else ",")[:24]
        )

    lines = [cut(TRADE_HEAD, ""), cut(PAID_ROW, "`"), cut(REFUND_ROW, "`"),
             TRADE_SUM_HEAD.removesuffix(",订单总金额,申请退款总金额"),
             ticked("2", "90.00", "36.00", "0.00", "0.32000")]  # fmt: skip
    assert [line.amount_minor for line in read(file_of(lines)).lines] == [9_000, -3_600]


def replaced(lines: list[str], old: str, new: str) -> bytes:
    text = "\r\n".join(lines)
    assert old in text
    return (text.replace(old, new, 1) + "\r\n").encode()


# What makes a file no bill.
BROKEN: Final = {
    "empty": b"",
    "no UTF-8": "交易时间".encode("gbk"),
    "an error in JSON": b'{"code":"SYSTEM_ERROR"}',
    "no summary": file_of(TRADE[:3]),
    "summary without values": file_of(TRADE[:4]),
    "a row without ticks": file_of([*TRADE[:2], "a,b", *TRADE[2:]]),
    "a row too short": replaced(TRADE, ",`0.60%", ""),
    "a row too many": file_of([TRADE_HEAD, PAID_ROW, *TRADE[1:]]),
    "a row too few": file_of([TRADE_HEAD, PAID_ROW, *TRADE[3:]]),
    "a fen more in a row": replaced(TRADE, "`100.00", "`100.01"),
    "a fee that does not add up": replaced(TRADE, "`0.53000", "`0.53001"),
    "a sum that is none": replaced(TRADE, "`0.32000", "`0.3.2"),
    "an amount with an exponent": replaced(TRADE, "`100.00", "`1e2"),
    "an amount that is no number": replaced(TRADE, "`100.00", "`NaN"),
    "a time of another form": replaced(TRADE, "2026-11-21 09", "21/11/2026 09"),
    "a column twice": replaced(TRADE, "设备号", "商户号"),
    "a column gone": replaced(TRADE, "微信订单号", "腾讯订单号"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_does_not_fit_is_no_bill(name: str):
    with pytest.raises(UnreadableBill):
        read(BROKEN[name])


def test_a_fund_bill_adds_up_by_direction():
    for old, new in (("`104.21", "`104.22"), ("`8", "`9"), ("收入", "进")):
        with pytest.raises(UnreadableBill):
            read(replaced(FUND, old, new), BillKind.FUND)


def test_packed_files_are_unpacked_and_hashed_after_that():
    raw = file_of(TRADE)
    bill = read_bill(BillKind.TRADE, DAY, gzip.compress(raw), sha1_of(raw).upper())
    assert bill.raw == raw
    for packed in (gzip.compress(raw)[:-9], gzip.compress(raw) + gzip.compress(raw), b"\x1f\x8bno"):
        with pytest.raises(UnreadableBill):
            read_bill(BillKind.TRADE, DAY, packed, sha1_of(raw))
    with pytest.raises(UnreadableBill):
        read_bill(BillKind.TRADE, DAY, gzip.compress(raw), sha1_of(raw + b" "))


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_break_the_reading(raw: bytes):
    with pytest.raises(MalformedMessage):
        read(raw)


@given(st.integers(min_value=0, max_value=len(file_of(TRADE)) - 1), st.binary(max_size=3))
def test_no_change_breaks_the_reading(place: int, instead: bytes):
    raw = file_of(TRADE)
    changed = raw[:place] + instead + raw[place + 1 :]
    try:
        bill = read(changed)
    except MalformedMessage:
        return
    assert all(type(line.amount_minor) is int for line in bill.lines)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture
async def provider(gateway: Gateway) -> AsyncIterator[WechatpayProvider]:
    ours = account(base_url=gateway.url, backup_url="")
    async with ProviderCalls() as calls:
        yield open_provider(ours, calls, SystemClock(), "https://shop.example/c")


def address(raw: bytes, url: str, **changed: Any) -> Answer:
    document = {"hash_type": "SHA1", "hash_value": sha1_of(raw), "download_url": url}
    return signed(document | changed)


async def test_a_bill_is_asked_for_and_then_fetched_signed_by_us(
    gateway: Gateway, provider: WechatpayProvider
):
    raw = file_of(TRADE)
    url = f"{gateway.url}/v3/billdownload/file?token=a%2Bb%7C%3D"
    gateway.say(address(raw, url), Answer(body=gzip.compress(raw), is_signed=False))
    told = await provider.bill(DAY, BillKind.TRADE)
    assert told.outcome is Outcome.CONFIRMED
    assert len(told.value.lines) == 2
    assert [one.target for one in gateway.heard] == [
        "/v3/bill/tradebill?bill_date=2026-11-21&bill_type=ALL&tar_type=GZIP",
        "/v3/billdownload/file?token=a%2Bb%7C%3D",
    ]


async def test_each_account_has_a_fund_bill(gateway: Gateway, provider: WechatpayProvider):
    raw = file_of(FUND)
    for one in FundAccount:
        gateway.say(
            address(raw, f"{gateway.url}/v3/billdownload/file?token=t"),
            Answer(body=raw, is_signed=False),
        )
        told = await provider.fund_bill(DAY, one)
        assert told.outcome is Outcome.CONFIRMED
        assert gateway.heard[-2].target == (
            f"/v3/bill/fundflowbill?bill_date=2026-11-21&account_type={one}&tar_type=GZIP"
        )


# Signed refusals -> outcome, and whether there is a bill.
NO_BILL: Final = """
404 NO_STATEMENT_EXIST  confirmed  empty
400 STATEMENT_CREATING  pending    none
400 INVALID_REQUEST     rejected   none
400 PARAM_ERROR         rejected   none
403 NO_AUTH             rejected   none
400 NEWS                unknown    none
500 SYSTEM_ERROR        unknown    none
"""


@pytest.mark.parametrize("row", NO_BILL.strip().splitlines())
async def test_a_day_may_have_no_bill(gateway: Gateway, provider: WechatpayProvider, row: str):
    status, code, outcome, there = row.split()
    gateway.say(fault(int(status), code))
    told = await provider.bill(DAY, BillKind.TRADE)
    assert told.outcome == outcome
    assert told.value == (
        Bill(kind=BillKind.TRADE, day=DAY, lines=(), raw=b"") if there == "empty" else None
    )


async def test_a_bill_of_another_hash_or_place_is_none(
    gateway: Gateway, provider: WechatpayProvider
):
    raw = file_of(TRADE)
    here = f"{gateway.url}/v3/billdownload/file?token=t"
    file = Answer(body=raw, is_signed=False)
    for answers in (
        [address(raw + b" ", here), file],
        [address(raw, here, hash_type="MD5"), file],
        [address(raw, here), Answer(status=404, is_signed=False)],
        [address(raw, here), Answer(status=302, headers={"Location": here}, is_signed=False)],
        [address(raw, "https://files.example/bill"), file],
        [address(raw, "http://169.254.169.254/latest"), file],
        [address(raw, f"{gateway.url}@files.example/bill"), file],
        [Answer(body=b"{}", is_signed=False), file],
    ):
        gateway.say(*answers)
        told = await provider.bill(DAY, BillKind.TRADE)
        assert (told.outcome, told.value) == (Outcome.UNKNOWN, None)
