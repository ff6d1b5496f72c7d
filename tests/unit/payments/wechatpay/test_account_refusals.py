"""Which refusals of WeChat Pay's are of the merchant account, so that another may be tried."""

from collections.abc import AsyncIterator
from typing import Final

import pytest

from app.payments.provider import Outcome
from tests.unit.payments.wechatpay.gateway_server import Answer, Gateway, open_gateway
from tests.unit.payments.wechatpay.test_provider import CHARGE, fault, provider_at


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as opened:
        yield opened


# status code                  concerns
ACCOUNT_FAULTS: Final = """
400 APPID_MCHID_NOT_MATCH   the-account
400 MCH_NOT_EXISTS          the-account
404 MCH_NOT_EXISTS          the-account
401 SIGN_ERROR              the-account
403 NO_AUTH                 the-account
403 RULE_LIMIT              the-account
400 PARAM_ERROR             the-request
400 ORDER_CLOSED            the-request
403 TRADE_ERROR             the-request
403 USER_ACCOUNT_ABNORMAL   the-request
403 OUT_TRADE_NO_USED       nobody
400 INVALID_REQUEST         nobody
429 FREQUENCY_LIMITED       nobody
500 SYSTEM_ERROR            nobody
403 NEWS                    nobody
"""


@pytest.mark.parametrize("row", ACCOUNT_FAULTS.strip().splitlines())
async def test_a_refusal_says_whether_it_is_of_the_account(gateway: Gateway, row: str):
    status, code, concerns = row.split()
    gateway.say(fault(int(status), code))
    async with provider_at(gateway.url) as provider:
        told = await provider.create(CHARGE)
    assert (told.outcome is Outcome.REJECTED) is (concerns != "nobody")
    assert told.concerns_account is (concerns == "the-account")


async def test_a_refused_repeat_says_nothing_of_the_first_sending(gateway: Gateway):
    """The first may stand: another account must not be tried."""
    gateway.say(Answer(status=202), fault(403, "NO_AUTH"))
    async with provider_at(gateway.url) as provider:
        told = await provider.create(CHARGE)
    assert (told.outcome, told.code, told.concerns_account) == (Outcome.UNKNOWN, "NO_AUTH", False)
