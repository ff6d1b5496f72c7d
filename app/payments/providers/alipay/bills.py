"""
Read a day's bill of Alipay: a zip of GBK tables; pure.

Each zip holds a table of details and one of sums; the details are read. Lines
that begin with `#` are remarks, the last of them count the rows and add them up.
A value ends with a tab, so a comma inside one is no end. Columns are found by
name: the set differs by kind and grows with the years.

Whatever a bill claims of its size, no more is unpacked than the limit.

Source:
    docs/PAYMENTS.md §2.5.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from typing import Final

from app.payments.provider import Bill, BillKind, BillLine, BillLineKind, MalformedMessage
from app.payments.providers.alipay.wire import CURRENCY, from_beijing, from_signed_yuan

UNPACKED_BYTES_MAX: Final = 536_870_912
MEMBERS_MAX: Final = 16
BILL_TYPES: Final = {BillKind.TRADE: "trade", BillKind.FUND: "signcustomer"}

Row = Mapping[str, str]

_SUMS_MARK: Final = "汇总"
_TRADE_KINDS: Final = {"交易": BillLineKind.PAYMENT, "退款": BillLineKind.REFUND}
_FUND_KINDS: Final = {
    "在线支付": BillLineKind.PAYMENT,
    "交易付款": BillLineKind.PAYMENT,
    "交易退款": BillLineKind.REFUND,
    "退款": BillLineKind.REFUND,
    "收费": BillLineKind.FEE,
    "服务费": BillLineKind.FEE,
    "退费": BillLineKind.FEE_RETURN,
    "转账": BillLineKind.TRANSFER,
    "充值": BillLineKind.TOP_UP,
    "提现": BillLineKind.WITHDRAWAL,
}
_PARENTHESES: Final = str.maketrans("\uff08\uff09", "()")


@dataclass(frozen=True, slots=True)
class _Sum:
    """A remark that counts rows: its pattern, and which amount of a row it adds up, if any."""

    remark: re.Pattern[str]
    amount_of: Callable[[Row], int]
    counts: Callable[[Row], bool]


def read_bill(
    packed: bytes, kind: BillKind, day: date, unpacked_bytes_max: int = UNPACKED_BYTES_MAX
) -> Bill:
    """
    Unpack and read one bill.

    Args:
        packed: the zip as downloaded.
        kind: what was asked for.
        day: in Beijing.
        unpacked_bytes_max: what is larger is no bill, whatever its headers claim.

    Raises:
        MalformedMessage: it is no such bill, is too large, or contradicts its own sums.
    """
    raw = _unpack_details(packed, unpacked_bytes_max)
    try:
        text = raw.decode("gb18030")  # holds GBK, and the characters that came later
        rows, remarks = _read_table(text)
        _check_sums(rows, remarks, _SUMS[kind])
        lines = [_READERS[kind](row) for row in rows]
    except (ValueError, KeyError) as error:
        raise MalformedMessage(why=f"{type(error).__name__} in a bill") from error
    return Bill(kind=kind, day=day, lines=lines, raw=raw)


def _unpack_details(packed: bytes, bytes_max: int) -> bytes:
    try:
        with zipfile.ZipFile(BytesIO(packed), metadata_encoding="gbk") as archive:
            return _read_member(archive, _details_member(archive), bytes_max)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        EOFError,
        LookupError,
        NotImplementedError,  # a compression that we do not know
        OSError,
        OverflowError,
        RuntimeError,  # encrypted
        ValueError,  # the name of a member is no GBK, a size is negative
    ) as error:
        raise MalformedMessage(why=f"{type(error).__name__} in a zip") from error


def _details_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = archive.infolist()
    if len(members) > MEMBERS_MAX:
        raise MalformedMessage(why="more members than a bill has")
    details = [
        one
        for one in members
        if one.filename.lower().endswith(".csv") and _SUMS_MARK not in one.filename
    ]
    if len(details) != 1:
        raise MalformedMessage(why="not one table of details")
    return details[0]


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, bytes_max: int) -> bytes:
    with archive.open(member) as file:
        raw = file.read(bytes_max + 1)
    if len(raw) > bytes_max:
        raise MalformedMessage(why="larger than any bill")
    return raw


def _read_table(text: str) -> tuple[list[Row], list[str]]:
    """Return the rows by column, and the remarks."""
    remarks: list[str] = []
    rows: list[Row] = []
    columns: Sequence[str] | None = None
    for line in _lines(text):
        if line.startswith("#"):
            remarks.append(line)
        elif columns is None:
            columns = [_column(name) for name in line.split(",")]
        else:
            values = _values(line)
            if len(values) != len(columns):
                message = "a row with another number of columns"
                raise ValueError(message)
            rows.append(dict(zip(columns, values, strict=True)))
    if columns is None:
        message = "no header"
        raise ValueError(message)
    return rows, remarks


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        trimmed = line.strip("\r\ufeff ")
        if trimmed.strip():
            yield trimmed


def _column(name: str) -> str:
    return name.strip().translate(_PARENTHESES)


def _values(line: str) -> list[str]:
    parts = line.rstrip("\t").split("\t,") if "\t" in line else line.split(",")
    return [part.strip() for part in parts]


def _trade_line(row: Row) -> BillLine:
    kind = _TRADE_KINDS.get(row["业务类型"], BillLineKind.OTHER)
    amount_minor = from_signed_yuan(row["订单金额(元)"])
    fee_minor = abs(from_signed_yuan(row["服务费(元)"] or "0"))
    is_refund = kind is BillLineKind.REFUND
    if (is_refund and amount_minor > 0) or (kind is BillLineKind.PAYMENT and amount_minor < 0):
        message = "an amount with the wrong sign"
        raise ValueError(message)
    return BillLine(
        kind=kind,
        number=row["退款批次号/请求号"] if is_refund else row["商户订单号"],
        provider_number=row["支付宝交易号"],
        amount_minor=amount_minor,
        # Printed with either sign over the years; a payment costs it, a refund returns it.
        fee_minor=fee_minor if is_refund else -fee_minor,
        currency=CURRENCY,
        happened_at=from_beijing(row["完成时间"]),
        raw=row,
        related_provider_number=row["支付宝交易号"] if is_refund else None,
    )


def _fund_line(row: Row) -> BillLine:
    kind = _FUND_KINDS.get(row["业务类型"], BillLineKind.OTHER)
    return BillLine(
        kind=kind,
        number=row["商户订单号"],
        provider_number=row["账务流水号"],
        amount_minor=_income(row) - _expense(row),
        fee_minor=0,
        currency=CURRENCY,
        happened_at=from_beijing(row["发生时间"]),
        raw=row,
        related_provider_number=row["业务流水号"] or None,
    )


def _income(row: Row) -> int:
    return abs(from_signed_yuan(row["收入金额(+元)"] or "0"))


def _expense(row: Row) -> int:
    return abs(from_signed_yuan(row["支出金额(-元)"] or "0"))


def _received(row: Row) -> int:
    return abs(from_signed_yuan(row["商家实收(元)"]))


def _is_payment(row: Row) -> bool:
    return row["业务类型"] == "交易"


def _is_refund(row: Row) -> bool:
    return row["业务类型"] == "退款"


def _is_income(row: Row) -> bool:
    return _income(row) > 0


def _is_expense(row: Row) -> bool:
    return _expense(row) > 0


_READERS: Final[Mapping[BillKind, Callable[[Row], BillLine]]] = {
    BillKind.TRADE: _trade_line,
    BillKind.FUND: _fund_line,
}
_COUNT_AND_SUM: Final = r"合计\uff1a([0-9]+)笔[^0-9-]*(-?[0-9]+(?:\.[0-9]{1,2})?)元"
_SUMS: Final[Mapping[BillKind, Sequence[_Sum]]] = {
    BillKind.TRADE: (
        _Sum(re.compile(f"#交易{_COUNT_AND_SUM}"), _received, _is_payment),
        _Sum(re.compile(f"#退款{_COUNT_AND_SUM}"), _received, _is_refund),
    ),
    BillKind.FUND: (
        _Sum(re.compile(f"#收入{_COUNT_AND_SUM}"), _income, _is_income),
        _Sum(re.compile(f"#支出{_COUNT_AND_SUM}"), _expense, _is_expense),
    ),
}


def _check_sums(rows: Sequence[Row], remarks: Sequence[str], sums: Sequence[_Sum]) -> None:
    """Compare the rows with what the remarks say of them, where they say something."""
    for one in sums:
        amounts = [one.amount_of(row) for row in rows if one.counts(row)]
        for told in filter(None, map(one.remark.match, remarks)):
            if (len(amounts), sum(amounts)) != (int(told[1]), abs(from_signed_yuan(told[2]))):
                message = "the rows are not those that were summed up"
                raise ValueError(message)
