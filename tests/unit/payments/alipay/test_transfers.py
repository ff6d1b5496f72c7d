"""Money that goes out, in certificate mode alone."""

from typing import Final

import pytest

from app.payments.provider import (
    Outcome,
    PaysOut,
    TransferRequest,
    TransferState,
)
from app.payments.providers.alipay.provider import AlipayProvider
from tests.unit.payments.alipay.alipay_side import (
    NOW,
)
from tests.unit.payments.alipay.gateway import (
    Gateway,
    refused,
)

TRANSFER: Final = TransferRequest(
    number="T0001",
    payee_id="2088000000000003",
    payee_name="张三",
    amount_minor=880,
    currency="CNY",
    description="Withdrawal",
    requested_at=NOW,
)


async def test_money_is_sent_in_certificate_mode_alone(alipay: AlipayProvider, gateway: Gateway):
    result = await alipay.transfer(TRANSFER)
    assert (result.outcome, result.code) == (Outcome.NOT_SENT, "needs_certificates")
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("told", "outcome", "state"),
    [
        ({"out_biz_no": "T0001", "status": "SUCCESS"}, Outcome.CONFIRMED, TransferState.SUCCEEDED),
        ({"out_biz_no": "T0001", "status": "DEALING"}, Outcome.CONFIRMED, TransferState.PROCESSING),
        ({"out_biz_no": "T0001", "status": "?"}, Outcome.CONFIRMED, TransferState.UNKNOWN),
        ({"out_biz_no": "T0002", "status": "SUCCESS"}, Outcome.UNKNOWN, None),
        (refused("PAYER_BALANCE_NOT_ENOUGH"), Outcome.REJECTED, None),
        (refused("SYSTEM_ERROR"), Outcome.UNKNOWN, None),
        (refused("REQUEST_PROCESSING"), Outcome.UNKNOWN, None),
        (refused("SOMETHING_NEW"), Outcome.UNKNOWN, None),
    ],
)
async def test_a_transfer_is_sent_and_judged(
    certified_alipay: AlipayProvider, gateway: Gateway, told, outcome, state
):
    assert isinstance(certified_alipay, PaysOut)
    gateway.reply({"code": "10000", **told})
    result = await certified_alipay.transfer(TRANSFER)
    assert (result.outcome, result.value and result.value.state) == (outcome, state)
    assert gateway.content == {
        "out_biz_no": "T0001",
        "trans_amount": "8.80",
        "product_code": "TRANS_ACCOUNT_NO_PWD",
        "biz_scene": "DIRECT_TRANSFER",
        "order_title": "Withdrawal",
        "payee_info": {
            "identity": "2088000000000003",
            "identity_type": "ALIPAY_USER_ID",
            "name": "张三",
        },
    }
    assert "张三" not in repr(TRANSFER)


async def test_a_transfer_nobody_knows_is_not_found(
    certified_alipay: AlipayProvider, gateway: Gateway
):
    gateway.reply(refused("ORDER_NOT_EXIST"))
    result = await certified_alipay.query_transfer(TRANSFER)
    assert result.value is not None
    assert (result.outcome, result.value.state) == (Outcome.CONFIRMED, TransferState.NOT_FOUND)
    assert "payee_info" not in gateway.content
