import pytest

from app.settlement import chart
from app.settlement.chart import Guard, Side

# account                                        code                             grows on  guard
CHART = [
    (chart.bank("CNY"), "bank.cny", Side.DEBIT, Guard.NONE),
    (
        chart.provider_receivable("wechatpay", "CNY"),
        "provider.wechatpay.receivable",
        "debit",
        "none",
    ),
    (chart.provider_fee("CNY"), "expense.provider_fee", Side.DEBIT, Guard.NONE),
    (chart.order_clearing("CNY"), "order.clearing", Side.CREDIT, Guard.NONE),
    (chart.refund_clearing("CNY"), "refund.clearing", Side.DEBIT, Guard.NONE),
    (chart.late_payment_suspense("CNY"), "suspense.late_payment", Side.CREDIT, Guard.NONE),
    (chart.merchant_payable("m-7", "CNY"), "merchant.m-7.payable", "credit", "no_negative"),
    (chart.net_revenue("CNY"), "revenue.net", Side.CREDIT, Guard.NONE),
    (chart.commission_revenue("CNY"), "revenue.commission", Side.CREDIT, Guard.NONE),
    (chart.output_vat("CNY"), "tax.output_vat", Side.CREDIT, Guard.NONE),
]


@pytest.mark.parametrize(("account", "code", "side", "guard"), CHART)
def test_the_chart_names_every_account(account, code, side, guard):
    assert (account.code, account.normal_side, account.guard) == (code, side, guard)


def test_an_account_in_another_currency_says_so():
    assert chart.order_clearing("USD").code == "order.clearing.usd"
    assert chart.bank("USD").code == "bank.usd"


def test_no_merchant_can_take_anothers_account():
    names = ["a", "a.payable", "a.payable.usd", "usd", ".", "payable"]
    codes = {chart.merchant_payable(n, c).code for n in names for c in ("CNY", "USD")}
    assert len(codes) == 2 * len(names)
