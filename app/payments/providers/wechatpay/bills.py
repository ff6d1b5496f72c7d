"""
Read a day's bill: what shoppers paid and got back, or what moved on our account.

Pure. Columns are found by their names, because the set differs by kind and has
grown over the years. Amounts are yuan in the file and whole fen here. The file
must hash to what the signed answer said, and its rows must add up to its own
summary; a bill that does not is none.

Source:
    docs/PAYMENTS.md §1.10.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Final

from app.payments.provider import Bill, BillKind, BillLine, BillLineKind, MalformedMessage
from app.payments.providers.wechatpay.products import BEIJING
from app.payments.providers.wechatpay.signing import Request
from app.payments.providers.wechatpay.snapshots import CURRENCY

UNPACKED_BYTES_MAX: Final = 1_073_741_824
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31  # zlib's word for "with gzip's header and checksum"
_YUAN: Final = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,5})?", re.ASCII)


class FundAccount(StrEnum):
    """Which of the merchant's accounts a fund bill is about."""

    BASIC = "BASIC"
    OPERATION = "OPERATION"
    FEES = "FEES"


class UnreadableBill(MalformedMessage):
    """The file is not the bill that was announced, or not one that we can read."""


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows of a bill and its summary, by column name."""

    rows: Sequence[Mapping[str, str]]
    summary: Mapping[str, str]


# Column of the rows -> column of the summary that is its sum.
_TRADE_SUMS: Final = {
    "应结订单金额": "应结订单总金额",
    "退款金额": "退款总金额",
    "充值券退款金额": "充值券退款总金额",
    "手续费": "手续费总金额",
    "订单金额": "订单总金额",
    "申请退款金额": "申请退款总金额",
}
_FUND_KINDS: Final[Mapping[str, BillLineKind]] = {
    "交易": BillLineKind.PAYMENT,
    "退款": BillLineKind.REFUND,
    "扣除交易手续费": BillLineKind.FEE,
    "交易手续费": BillLineKind.FEE,
    "充值": BillLineKind.TOP_UP,
    "提现": BillLineKind.WITHDRAWAL,
    "商家转账": BillLineKind.TRANSFER,
    "商家转账到零钱": BillLineKind.TRANSFER,
    "企业付款": BillLineKind.TRANSFER,
    "企业付款到零钱": BillLineKind.TRANSFER,
}


def bill_request(day: date, kind: BillKind, account: FundAccount = FundAccount.BASIC) -> Request:
    """Write the question where a day's bill lies; the day is Beijing's."""
    if kind is BillKind.TRADE:
        what = f"tradebill?bill_date={day.isoformat()}&bill_type=ALL"
    else:
        what = f"fundflowbill?bill_date={day.isoformat()}&account_type={account}"
    return Request("GET", f"/v3/bill/{what}&tar_type=GZIP")


def read_bill(kind: BillKind, day: date, downloaded: bytes, sha1: str) -> Bill:
    """
    Unpack, check and read one bill; takes the processor for a while.

    Args:
        kind: which of the two formats.
        day: in Beijing.
        downloaded: the file as it came, packed or not.
        sha1: of the unpacked file, as the signed answer said; hex.

    Raises:
        UnreadableBill: wrong hash, cut, too long, no bill, or its sums are not its rows'.
    """
    raw = _unpack(downloaded)
    found = hashlib.sha1(raw).hexdigest()  # noqa: S324  the protocol's own choice
    if not hmac.compare_digest(found, sha1.lower()):
        raise UnreadableBill(why="it does not hash to what was announced")
    table = _read_table(raw)
    if kind is BillKind.TRADE:
        _check_trade_sums(table)
        lines = [_trade_line(row) for row in table.rows]
    else:
        _check_fund_sums(table)
        lines = [_fund_line(row) for row in table.rows]
    return Bill(kind=kind, day=day, lines=lines, raw=raw)


def empty_bill(kind: BillKind, day: date) -> Bill:
    """Return the bill of a day on which nothing happened; WeChat Pay makes no file for it."""
    return Bill(kind=kind, day=day, lines=(), raw=b"")


def _unpack(downloaded: bytes) -> bytes:
    if not downloaded.startswith(_GZIP_MAGIC):
        return downloaded
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        raw = unpacker.decompress(downloaded, UNPACKED_BYTES_MAX)
    except zlib.error as error:
        raise UnreadableBill(why="it cannot be unpacked") from error
    if not unpacker.eof or unpacker.unused_data:
        raise UnreadableBill(why="it is cut, too long, or more than one file")
    return raw


def _read_table(raw: bytes) -> _Table:
    """Split a bill: a header, rows that begin with a backtick, a second header, one row."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableBill(why="it is not UTF-8") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    lines = [line for line in lines if line]
    heads = [index for index, line in enumerate(lines) if not line.startswith("`")]
    if len(heads) != 2 or heads[0] != 0 or heads[1] != len(lines) - 2:
        raise UnreadableBill(why="it is not a header, rows, a header and a summary")
    columns, totals = _columns(lines[0]), _columns(lines[-2])
    rows = [_row(columns, line) for line in lines[1:-2]]
    return _Table(rows, _row(totals, lines[-1]))


def _columns(line: str) -> list[str]:
    names = [name.strip() for name in line.split(",")]
    if len(set(names)) != len(names):
        raise UnreadableBill(why="a column is there twice")
    return names


def _row(columns: Sequence[str], line: str) -> Mapping[str, str]:
    values = line.removeprefix("`").split(",`")
    if len(values) != len(columns):
        raise UnreadableBill(why="a row has another number of columns than its header")
    return {name: value.strip() for name, value in zip(columns, values, strict=True)}


def _trade_line(row: Mapping[str, str]) -> BillLine:
    """Read a payment or a refund; both carry the payment's own number, a refund its own too."""
    status = row.get("交易状态", "")
    fee = -_yuan(row.get("手续费", "0"))  # we pay it: positive there, negative here
    happened_at = _moment(_cell(row, "交易时间"))
    if status in ("REFUND", "REVOKED"):
        went_back = row.get("申请退款金额") or _cell(row, "退款金额")
        return BillLine(
            kind=BillLineKind.REFUND,
            number=_number(row.get("商户退款单号", "")),
            provider_number=_number(row.get("微信退款单号", "")),
            amount_minor=-_fen(_yuan(went_back)),
            fee_minor=_fen(fee),
            currency=row.get("货币种类") or CURRENCY,
            happened_at=happened_at,
            raw=row,
            related_provider_number=_cell(row, "微信订单号"),
        )
    came_in = row.get("订单金额") or _cell(row, "应结订单金额")
    return BillLine(
        kind=BillLineKind.PAYMENT if status == "SUCCESS" else BillLineKind.OTHER,
        number=_cell(row, "商户订单号"),
        provider_number=_cell(row, "微信订单号"),
        amount_minor=_fen(_yuan(came_in)),
        fee_minor=_fen(fee),
        currency=row.get("货币种类") or CURRENCY,
        happened_at=happened_at,
        raw=row,
    )


def _fund_line(row: Mapping[str, str]) -> BillLine:
    direction = _cell(row, "收支类型")
    if direction not in ("收入", "支出"):
        raise UnreadableBill(why="a row goes neither in nor out")
    amount = _fen(_yuan(_cell(row, "收支金额(元)")))
    kind = _FUND_KINDS.get(row.get("业务类型", "")) or _FUND_KINDS.get(
        row.get("业务名称", ""), BillLineKind.OTHER
    )
    if kind is BillLineKind.FEE and direction == "收入":
        kind = BillLineKind.FEE_RETURN
    return BillLine(
        kind=kind,
        number=_number(row.get("业务凭证号", "")),
        provider_number=_cell(row, "微信支付业务单号"),
        amount_minor=amount if direction == "收入" else -amount,
        fee_minor=0,
        currency=CURRENCY,
        happened_at=_moment(_cell(row, "记账时间")),
        raw=row,
    )


def _check_trade_sums(table: _Table) -> None:
    _check_count(table.summary, "总交易单数", len(table.rows))
    for column, total in _TRADE_SUMS.items():
        if total in table.summary:
            sums = sum((_yuan(_cell(row, column)) for row in table.rows), Decimal(0))
            if sums != _yuan(table.summary[total]):
                raise UnreadableBill(why=f"{total} is not the sum of its rows")


def _check_fund_sums(table: _Table) -> None:
    _check_count(table.summary, "资金流水总笔数", len(table.rows))
    for direction in ("收入", "支出"):
        rows = [row for row in table.rows if row.get("收支类型") == direction]
        _check_count(table.summary, f"{direction}笔数", len(rows))
        sums = sum((_yuan(_cell(row, "收支金额(元)")) for row in rows), Decimal(0))
        if sums != _yuan(_cell(table.summary, f"{direction}金额")):
            raise UnreadableBill(why=f"{direction}金额 is not the sum of its rows")


def _check_count(summary: Mapping[str, str], name: str, count: int) -> None:
    told = _cell(summary, name)
    # Shown as a number of yuan in some bills: "3.0" is three rows.
    if _yuan(told) != count:
        raise UnreadableBill(why=f"{name} is not the number of its rows")


def _cell(row: Mapping[str, str], column: str) -> str:
    try:
        return row[column]
    except KeyError:
        raise UnreadableBill(why=f"it has no column {column}") from None


def _number(value: str) -> str:
    """Return a number; `0` and an empty cell both mean that there is none."""
    return "" if value == "0" else value


def _yuan(text: str) -> Decimal:
    if _YUAN.fullmatch(text) is None:
        raise UnreadableBill(why="an amount is not a plain decimal")
    return Decimal(text)


def _fen(yuan: Decimal) -> int:
    """Turn yuan into whole fen; a fee is told with five decimals and charged with two."""
    return int((yuan * 100).quantize(Decimal(1), ROUND_HALF_UP))


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
    except ValueError as error:
        raise UnreadableBill(why="a time is not written as we know it") from error
