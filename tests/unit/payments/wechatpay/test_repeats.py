"""What becomes of a repeat says nothing of the request that went out before it."""

import pytest

from app.payments.provider import Outcome
from tests.unit.payments.wechatpay.gateway_server import Answer, open_gateway
from tests.unit.payments.wechatpay.test_provider import ASKS, CHARGE, fault, provider_at


@pytest.mark.parametrize("asked", ["create", "refund", "transfer"])
async def test_a_refusal_of_the_repeat_says_nothing_of_the_first(asked: str):
    """The first host may have done it before the line broke; only a question tells."""
    refused = fault(400, "PARAM_ERROR")
    async with open_gateway() as gateway, open_gateway() as backup:
        hosts = {"backup_url": backup.url, "transfer_scene_id": "1000"}
        async with provider_at(gateway.url, **hosts) as provider:
            gateway.say(refused)
            assert (await ASKS[asked](provider)).outcome is Outcome.REJECTED
            gateway.say(Answer(hang_up=True))
            backup.say(refused)
            assert (await ASKS[asked](provider)).outcome is Outcome.UNKNOWN
            assert len(backup.heard) == 1
            gateway.say(Answer(status=202), refused)
            assert (await ASKS[asked](provider)).outcome is Outcome.UNKNOWN


async def test_what_was_accepted_with_a_202_was_sent_though_nobody_hears_the_repeat():
    async with open_gateway() as gateway, provider_at(gateway.url) as provider:
        gateway.say(Answer(status=202, headers={"Connection": "close"}, and_leave=True))
        told = await provider.create(CHARGE)
        assert len(gateway.heard) == 1
        assert told.outcome is Outcome.UNKNOWN
