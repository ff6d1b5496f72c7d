"""A bill is read by the names of its columns, and never trusted for its size."""

import struct
import zlib
from datetime import UTC, date, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.payments.provider import Bill, BillKind, BillLineKind, MalformedMessage
from app.payments.providers.alipay.bills import read_bill
from tests.unit.payments.alipay.bill_files import (
    FUND_BILL,
    TRADE_BILL,
    archive,
    packed,
    trade,
    trade_bill,
)

DAY: Final = date(2026, 11, 21)


def read(details: str, kind: BillKind = BillKind.TRADE) -> Bill:
    return read_bill(packed(details), kind, DAY)


def test_payments_and_refunds_have_the_sign_of_our_account():
    first, second, refund = read(TRADE_BILL).lines
    assert (first.kind, first.amount_minor, first.fee_minor) == (BillLineKind.PAYMENT, 1234, -7)
    assert (second.amount_minor, second.fee_minor) == (1, 0)
    assert (refund.kind, refund.amount_minor, refund.fee_minor) == (BillLineKind.REFUND, -500, 3)
    assert first.number == "0123456789ABCDEFGHJKMNPQRS01"
    assert refund.number == "R0123456789ABCDEFGHJKMNPQRS01L01"
    assert refund.related_provider_number == first.provider_number
    assert first.happened_at == datetime(2026, 11, 21, 2, 0, 9, tzinfo=UTC)
    assert first.currency == "CNY"


def test_a_comma_in_a_title_is_part_of_it():
    assert read(TRADE_BILL).lines[0].raw["商品名称"] == "a, b \uff08c\uff09"


def test_the_raw_table_is_kept_as_it_came():
    assert read(TRADE_BILL).raw == TRADE_BILL.encode("gbk")


def test_whom_a_line_is_about_shows_in_no_repr():
    assert "zha***" not in repr(read(TRADE_BILL).lines[0])


def test_a_fund_bill_tells_what_moved():
    lines = read_bill(packed(FUND_BILL, "2088_账务明细.csv"), BillKind.FUND, DAY).lines
    assert [(line.kind, line.amount_minor) for line in lines] == [
        (BillLineKind.PAYMENT, 1234),
        (BillLineKind.FEE, -7),
        (BillLineKind.REFUND, -500),
        (BillLineKind.FEE_RETURN, 3),
        (BillLineKind.WITHDRAWAL, -700),
        (BillLineKind.OTHER, 100),
    ]


def test_columns_may_move_and_more_may_come():
    header, value = "新的,", "neu\t,"
    lines = TRADE_BILL.split("\r\n")
    lines[4] = header + lines[4]
    lines[5:8] = [value + line for line in lines[5:8]]
    assert read("\r\n".join(lines)).lines[0].amount_minor == 1234


def test_a_bill_without_sums_is_read_all_the_same():
    assert len(read(trade_bill(trade("交易", "1.00"))).lines) == 1
    assert list(read(trade_bill()).lines) == []


BAD_TABLES: Final = {
    "no header": "#\n#",
    "nothing": "",
    "a column is missing": TRADE_BILL.replace("服务费", "费用"),
    "a row is short": TRADE_BILL.replace("0.00\t,\t\r\n#---", "\r\n#---", 1),
    "a positive refund": trade_bill(trade("退款", "5.00", request="R")),
    "a negative payment": trade_bill(trade("交易", "-5.00")),
    "an amount with three places": trade_bill(trade("交易", "5.001")),
    "an amount with an exponent": trade_bill(trade("交易", "1e3")),
    "no amount": trade_bill(trade("交易", "")),
    "a row too many": TRADE_BILL.replace("2笔", "3笔"),
    "another sum": TRADE_BILL.replace("12.35", "12.36"),
    "another sum of refunds": TRADE_BILL.replace("共-5.00", "共-4.00"),
    "a time of another form": TRADE_BILL.replace("10:00:09", "10.00.09"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_so_is_malformed(name: str):
    assert BAD_TABLES[name] != TRADE_BILL
    with pytest.raises(MalformedMessage):
        read(BAD_TABLES[name])


GOOD: Final = packed(TRADE_BILL)
CHECKSUM: Final = struct.pack("<I", zlib.crc32(TRADE_BILL.encode("gbk")))
BAD_ZIPS: Final = {
    "empty": b"",
    "a page": b"<html>expired</html>",
    "cut": GOOD[: len(GOOD) // 2],
    "no member": archive({}),
    "no table": archive({"readme.txt": b"x"}),
    "two tables": archive({"a.csv": b"x", "b.csv": b"x"}),
    "many members": archive({f"{n}.txt": b"" for n in range(20)} | {"a.csv": b"x"}),
    "no GBK": archive({"a.csv": b"\xff\xff\xff"}),
    "a broken checksum": GOOD.replace(
        struct.pack("<I", zlib.crc32(TRADE_BILL.encode("gbk"))), bytes(4)
    ),
    "encrypted": archive({"a.csv": b"x"}).replace(b"\x14\x00\x00\x00\x08", b"\x14\x00\x01\x00\x08"),
    "an unknown compression": archive({"a.csv": b"x"}).replace(
        b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x00\x00\x63\x00"
    ),
}


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_what_is_no_bill_is_malformed(name: str):
    with pytest.raises(MalformedMessage):
        read_bill(BAD_ZIPS[name], BillKind.TRADE, DAY)


@pytest.mark.parametrize("claimed", [None, 10])
def test_a_zip_that_explodes_is_stopped_at_the_limit(claimed: int | None):
    bomb = archive({"a.csv": b"#" * 10_000_000}, claimed=claimed)
    assert len(bomb) < 20_000
    with pytest.raises(MalformedMessage):
        read_bill(bomb, BillKind.TRADE, DAY, unpacked_bytes_max=1_000_000)
    with pytest.raises(MalformedMessage, match="larger than any bill"):
        read_bill(GOOD, BillKind.TRADE, DAY, unpacked_bytes_max=100)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_no_changed_bytes_break_the_reading(place: int, changed: bytes):
    try:
        bill = read_bill(GOOD[:place] + changed + GOOD[place + 1 :], BillKind.TRADE, DAY)
    except MalformedMessage:
        return
    assert bill.raw == TRADE_BILL.encode("gbk")  # the checksum holds


@given(
    st.text(alphabet="#,\t\r\n合计交易0123456789.-元笔", max_size=200), st.sampled_from(BillKind)
)
def test_no_table_breaks_the_reading(table: str, kind: BillKind):
    try:
        read_bill(packed(table), kind, DAY)
    except MalformedMessage:
        return
