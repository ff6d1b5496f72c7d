"""
WeChat Pay's bills as text: every value behind a backtick, amounts in yuan.

Source:
    docs/PAYMENTS.md §1.10.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from app.kernel.clock import instant
from app.payments.provider import RefundStatus
from app.sandbox.numbers import BEIJING
from app.sandbox.statements import LineKind, StatementLine
from app.sandbox.wechatpay.words import payer_of, trade_type

TRADE_COLUMNS: Final = (
    "交易时间", "公众账号ID", "商户号", "特约商户号", "设备号", "微信订单号", "商户订单号",
    "用户标识", "交易类型", "交易状态", "付款银行", "货币种类", "应结订单金额", "代金券金额",
    "微信退款单号", "商户退款单号", "退款金额", "充值券退款金额", "退款类型", "退款状态",
    "商品名称", "商户数据包", "手续费", "费率", "订单金额", "申请退款金额", "费率备注",
)  # fmt: skip
TRADE_TOTALS: Final = (
    "总交易单数", "应结订单总金额", "退款总金额", "充值券退款总金额", "手续费总金额",
    "订单总金额", "申请退款总金额",
)  # fmt: skip
FUND_COLUMNS: Final = (
    "记账时间", "微信支付业务单号", "资金流水单号", "业务名称", "业务类型", "收支类型",
    "收支金额(元)", "账户结余(元)", "资金变更提交申请人", "备注", "业务凭证号",
)  # fmt: skip
FUND_TOTALS: Final = ("资金流水总笔数", "收入笔数", "收入金额", "支出笔数", "支出金额")

_REFUND_STATUSES: Final = {
    RefundStatus.SUCCEEDED: "SUCCESS",
    RefundStatus.PROCESSING: "PROCESSING",
    RefundStatus.CLOSED: "FAIL",
    RefundStatus.ABNORMAL: "CHANGE",
}
_NOTHING: Final = "0.00"


def trade_bill(lines: Sequence[StatementLine], fee_bps: int) -> bytes:
    """Write the bill of what shoppers paid and got back."""
    rate = f"{fee_bps / 100:.2f}%"
    return _table(TRADE_COLUMNS, map(_trade_row, lines, [rate] * len(lines)), _trade_totals(lines))


def _trade_row(line: StatementLine, rate: str) -> list[str]:
    payment = line.payment
    is_refund = line.kind is LineKind.REFUND
    refunded = yuan(line.amount_minor) if is_refund else _NOTHING
    paid = _NOTHING if is_refund else yuan(line.amount_minor)
    status = "" if line.refund_status is None else _REFUND_STATUSES[line.refund_status]
    values = {
        "交易时间": _moment(line.at_ms),
        "公众账号ID": payment.app_id,
        "商户号": payment.merchant_id,
        "特约商户号": "0",
        "微信订单号": line.provider_number,
        "商户订单号": line.number,
        "用户标识": payer_of(payment),
        "交易类型": trade_type(payment),
        "交易状态": "REFUND" if is_refund else "SUCCESS",
        "付款银行": "OTHERS",
        "货币种类": payment.currency,
        "应结订单金额": paid,
        "代金券金额": _NOTHING,
        "微信退款单号": line.refund_provider_number or "0",
        "商户退款单号": line.refund_number or "0",
        "退款金额": refunded,
        "充值券退款金额": _NOTHING,
        "退款类型": "ORIGINAL" if is_refund else "",
        "退款状态": status,
        "商品名称": payment.description,
        "商户数据包": payment.attach,
        "手续费": ("-" if is_refund and line.fee_minor else "") + f"{yuan(line.fee_minor)}000",
        "费率": rate,
        "订单金额": paid,
        "申请退款金额": refunded,
    }
    return [values.get(column, "") for column in TRADE_COLUMNS]


def _trade_totals(lines: Sequence[StatementLine]) -> tuple[Sequence[str], list[str]]:
    paid = sum(line.amount_minor for line in lines if line.kind is LineKind.PAYMENT)
    refunded = sum(line.amount_minor for line in lines if line.kind is LineKind.REFUND)
    fees = sum(
        line.fee_minor if line.kind is LineKind.PAYMENT else -line.fee_minor for line in lines
    )
    amounts = [yuan(paid), yuan(refunded), _NOTHING, f"{yuan(fees)}000", yuan(paid), yuan(refunded)]
    return TRADE_TOTALS, [str(len(lines)), *amounts]


def fund_bill(lines: Sequence[StatementLine]) -> bytes:
    """Write the bill of what moved on the merchant's account: money in, out, and fees."""
    moves = [move for line in lines for move in _moves(line)]
    rows, balance = [], 0
    for ordinal, (line, name, kind, signed_minor) in enumerate(moves, start=1):
        balance += signed_minor
        number = line.refund_provider_number or line.provider_number
        side = "收入" if signed_minor > 0 else "支出"
        what = [_moment(line.at_ms), number, f"{number}{ordinal:06d}", name, kind, side]
        amounts = [yuan(abs(signed_minor)), yuan(balance)]
        rows.append([*what, *amounts, "system", "", line.refund_number or line.number])
    income = [amount for *_, amount in moves if amount > 0]
    spent = [-amount for *_, amount in moves if amount < 0]
    totals = [str(len(moves)), str(len(income)), yuan(sum(income)), str(len(spent))]
    return _table(FUND_COLUMNS, rows, (FUND_TOTALS, [*totals, yuan(sum(spent))]))


def _moves(line: StatementLine) -> Iterator[tuple[StatementLine, str, str, int]]:
    if line.kind is LineKind.PAYMENT:
        yield line, "交易", "交易", line.amount_minor
        if line.fee_minor:
            yield line, "手续费", "扣除交易手续费", -line.fee_minor
        return
    if line.refund_status is not RefundStatus.CLOSED:
        yield line, "退款", "退款", line.fee_minor - line.amount_minor


def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    totals: tuple[Sequence[str], Sequence[str]],
) -> bytes:
    names, sums = totals
    text = [",".join(columns), *map(_quoted, rows), ",".join(names), _quoted(sums)]
    return ("\ufeff" + "".join(f"{line}\r\n" for line in text)).encode()


def _quoted(values: Sequence[str]) -> str:
    # A comma within a text would split it: the platform puts this in its place.
    return ",".join("`" + value.replace(",", "\\ ") for value in values)


def yuan(minor: int) -> str:
    """Write fen as yuan."""
    sign = "-" if minor < 0 else ""
    whole, rest = divmod(abs(minor), 100)
    return f"{sign}{whole}.{rest:02d}"


def _moment(at_ms: int) -> str:
    return instant(at_ms).astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")
