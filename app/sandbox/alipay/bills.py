# ruff: noqa: RUF001  the names of Alipay's columns are full-width
"""
Alipay's bill of a day: two tables in GBK, packed.

Source:
    docs/PAYMENTS.md §2.5.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

from app.sandbox.alipay.archive import pack_gbk
from app.sandbox.alipay.words import beijing_time, yuan
from app.sandbox.statements import LineKind, StatementLine

COLUMNS: Final = (
    "支付宝交易号", "商户订单号", "业务类型", "商品名称", "创建时间", "完成时间", "门店编号",
    "门店名称", "操作员", "终端号", "对方账户", "订单金额（元）", "商家实收（元）",
    "支付宝红包（元）", "集分宝（元）", "支付宝优惠（元）", "商家优惠（元）", "券核销金额（元）",
    "券名称", "商家红包消费金额（元）", "卡消费金额（元）", "退款批次号/请求号", "服务费（元）",
    "分润（元）", "备注",
)  # fmt: skip
_SUMMARY_COLUMNS: Final = (
    "门店编号", "门店名称", "交易订单总笔数", "退款订单总笔数", "订单金额（元）", "商家实收（元）",
    "支付宝优惠（元）", "商家优惠（元）", "卡消费金额（元）", "服务费（元）", "分润（元）",
    "实收净额（元）",
)  # fmt: skip
_RULE: Final = "#-----------------------------------------"


def trade_bill(seller_id: str, day: date, lines: Sequence[StatementLine]) -> bytes:
    """Write one merchant's bill of a day as the zip it is downloaded as."""
    account = f"{seller_id}0156"
    stem = f"{account}_{day:%Y%m%d}"
    details = _table("业务明细", account, day, COLUMNS, [_row(line) for line in lines])
    summary = _table("业务汇总", account, day, _SUMMARY_COLUMNS, [_totals(lines)])
    return pack_gbk({f"{stem}_业务明细.csv": details, f"{stem}_业务明细(汇总).csv": summary})


def _row(line: StatementLine) -> list[str]:
    sign = 1 if line.kind is LineKind.PAYMENT else -1
    amount = yuan(sign * line.amount_minor)
    values = {
        "支付宝交易号": line.provider_number,
        "商户订单号": line.number,
        "业务类型": "交易" if line.kind is LineKind.PAYMENT else "退款",
        "商品名称": line.payment.description.replace(",", "，"),
        "创建时间": beijing_time(line.payment.created_at_ms),
        "完成时间": beijing_time(line.at_ms),
        "对方账户": "san***@example.com",
        "订单金额（元）": amount,
        "商家实收（元）": amount,
        "退款批次号/请求号": line.refund_number,
        "服务费（元）": yuan(-sign * line.fee_minor),
    }
    return [values.get(name, "0.00" if name.endswith("（元）") else "") for name in COLUMNS]


def _totals(lines: Sequence[StatementLine]) -> list[str]:
    signed = [(1 if one.kind is LineKind.PAYMENT else -1, one) for one in lines]
    net = sum(sign * one.amount_minor for sign, one in signed)
    fees = sum(-sign * one.fee_minor for sign, one in signed)
    counts = [str(sum(sign == which for sign, _ in signed)) for which in (1, -1)]
    nothing = ["0.00"] * 3
    return [
        "合计",
        "",
        *counts,
        yuan(net),
        yuan(net),
        *nothing,
        yuan(fees),
        "0.00",
        yuan(net + fees),
    ]


def _table(
    title: str, account: str, day: date, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> bytes:
    """Write one file: comments, the header in line five, values that end with a tabulator."""
    head = [
        f"#支付宝{title}查询",
        f"#账号：[{account}]",
        f"#起始日期：[{day:%Y年%m月%d日} 00:00:00]   终止日期：[{day:%Y年%m月%d日} 24:00:00]",
        f"{_RULE}{title}列表{_RULE[1:]}",
        ",".join(columns),
    ]
    body = [",".join(f"{value}\t" for value in row) for row in rows]
    foot = [f"{_RULE}{title}列表结束{_RULE[1:]}"]
    return "".join(f"{line}\r\n" for line in (*head, *body, *foot)).encode("gbk", "replace")
