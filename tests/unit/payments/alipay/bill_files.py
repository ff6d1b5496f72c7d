"""Bills as Alipay packs them: two GBK tables with GBK names in a zip without the UTF-8 flag."""

# ruff: noqa: RUF001  Chinese punctuation is what a bill is written in

import struct
import zlib
from typing import Final

# Fifteen of the columns that a bill has; they are found by name.
_COLUMNS: Final = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,对方账户,订单金额（元）,"
    "商家实收（元）,支付宝红包（元）,券名称,退款批次号/请求号,服务费（元）,分润（元）,备注"
)


def row(*values: str) -> str:
    return ",".join(f"{value}\t" for value in values)


def trade(kind: str, amount: str, *, request: str = "", fee: str = "0.00", title: str = "x") -> str:
    return row(
        "2026112122001400000000000001", "0123456789ABCDEFGHJKMNPQRS01", kind, title,
        "2026-11-21 10:00:00", "2026-11-21 10:00:09", "*三(zha***@example.com)", amount, amount,
        "0.00", "", request, fee, "0.00", "",
    )  # fmt: skip


def trade_bill(*rows: str, sums: tuple[str, ...] = ()) -> str:
    return "\r\n".join(
        [
            "#支付宝业务明细查询",
            "#账号：[20880000000000020156]",
            "#起始日期：[2026年11月21日 00:00:00]   终止日期：[2026年11月22日 00:00:00]",
            "#-----------------------------------------业务明细列表----------------",
            _COLUMNS,
            *rows,
            "#-----------------------------------------业务明细列表结束------------",
            *sums,
            "#导出时间：[2026年11月22日 09:00:00]",
            "",
        ]
    )


TRADE_BILL: Final = trade_bill(
    trade("交易", "12.34", fee="-0.07", title="a, b \uff08c\uff09"),
    trade("交易", "0.01"),
    trade("退款", "-5.00", request="R0123456789ABCDEFGHJKMNPQRS01L01", fee="0.03"),
    sums=(
        "#交易合计：2笔，商家实收共12.35元，商家优惠共0.00元",
        "#退款合计：1笔，商家实收退款共-5.00元，商家优惠退款共0.00元",
    ),
)

_FUND_COLUMNS: Final = (
    "账务流水号,业务流水号,商户订单号,商品名称,发生时间,对方账号,收入金额（+元）,"
    "支出金额（-元）,账户余额（元）,交易渠道,业务类型,备注"
)


def fund(number: str, income: str, expense: str, kind: str) -> str:
    return row(
        number, "2026112122001400000000000001", "0123456789ABCDEFGHJKMNPQRS01", "x",
        "2026-11-21 10:00:09", "*三", income, expense, "100.00", "支付宝", kind, "",
    )  # fmt: skip


FUND_BILL: Final = "\n".join(
    [
        "#支付宝账务明细查询",
        _FUND_COLUMNS,
        fund("1", "12.34", "", "在线支付"),
        fund("2", "", "-0.07", "收费"),
        fund("3", "", "-5.00", "交易退款"),
        fund("4", "0.03", "", "退费"),
        fund("5", "", "-7.00", "提现"),
        fund("6", "1.00", "", "红包奖励"),
        "#支出合计：3笔，共-12.07元",
        "#收入合计：3笔，共13.37元",
    ]
)


def packed(details: str, name: str = "20881_20261121_业务明细.csv") -> bytes:
    return archive({name: details.encode("gbk"), name.replace(".", "(汇总)."): b"#"})


def archive(members: dict[str, bytes], *, claimed: int | None = None) -> bytes:
    """
    Pack members under GBK names, flag 11 not set; Python's own writer would set it.

    `claimed` is the size that headers tell of each member, true or not.
    """
    body, directory = b"", b""
    for name, content in members.items():
        squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = squeezed.compress(content) + squeezed.flush()
        told = name.encode("gbk")
        size = len(content) if claimed is None else claimed
        head = struct.pack(
            "<HHHHHIIIHH", 20, 0, 8, 0, 0x21, zlib.crc32(content), len(data), size, len(told), 0
        )
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + head
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + told
        body += b"PK\x03\x04" + head + told + data
    count = len(members)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end
