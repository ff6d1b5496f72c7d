"""A refund is sent until the provider says success, with one number for ever."""

import msgspec
import pytest
from structlog.testing import capture_logs

from app.kernel.errors import ProviderUnavailable
from app.payments.intent import AttemptState
from app.payments.provider import RefundStatus
from app.payments.providers.sandbox_wire import RefundMessage
from app.payments.refunds import send_refunds_once
from app.payments.stage import Providers
from tests.stores.payments.desk import PRICE_MINOR, Desk
from tests.stores.payments.gateways import Losing
from tests.waiting import eventually


async def late_payment(desk: Desk) -> str:
    """Pay a closed order, and return the number of the attempt."""
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.close_order(key)
    await desk.play(attempt.number, callback="never")
    told = await desk.provider.query(attempt.reference())
    assert told.value is not None
    message = desk.message(attempt, provider_number=told.value.provider_number)
    assert (await desk.receive(desk.callback(message, f"evt-{attempt.number}"))).status == 200
    return attempt.number


async def _refund_state(desk: Desk) -> str:
    (refund,) = await desk.refunds()
    return str(refund["state"])


async def test_a_late_payment_goes_back_by_itself_and_settlement_hears_of_it(desk: Desk):
    number = await late_payment(desk)

    assert await send_refunds_once(desk.stage) == 1
    await eventually(lambda: _is(desk, "succeeded"))

    (refund,) = await desk.refunds()
    assert await desk.facts() == [
        ("late_payment", number),
        ("refund_requested", refund["number"]),
        ("refund_succeeded", refund["number"]),
    ]
    (fact,) = await desk.rows("SELECT payload FROM outbox WHERE kind = 'refund_succeeded'")
    assert fact["payload"] == {
        "refund_no": refund["number"],
        "order_id": number[:-2],
        "attempt": number,
        "provider": "sandbox",
        "merchant": "acme",
        "amount_minor": PRICE_MINOR,
        "currency": "CNY",
        "suspense": True,
    }
    assert await send_refunds_once(desk.stage) == 0
    assert (await desk.attempt(number)).state is AttemptState.PAID_LATE


async def test_a_worker_that_died_after_sending_asks_before_it_sends_again(desk: Desk):
    await late_payment(desk)
    await desk.execute("UPDATE refunds SET state = 'sent'")  # and the call never left
    await desk.make_due()

    assert await send_refunds_once(desk.stage) == 1
    await eventually(lambda: _is(desk, "succeeded"))


async def test_somebody_is_told_of_a_refund_that_does_not_end(desk: Desk):
    """Half an hour without a clear answer is too long; what was accepted may take days."""
    await late_payment(desk)
    gone = desk.stage_with(Providers([]))
    half_an_hour_ms = desk.stage.settings.unsettled_alarm_ms + 60_000
    days_ms = desk.stage.settings.refund_alarm_ms
    told = []
    for state, later_ms in (("unknown", 0), ("sent", half_an_hour_ms), ("unknown", 0),
                            ("sent", days_ms)):  # fmt: skip
        desk.clock.advance(later_ms)
        await desk.execute("UPDATE refunds SET state = $1::text::refund_state", state)
        await desk.make_due()
        with capture_logs() as logs, pytest.raises(ProviderUnavailable):
            await send_refunds_once(gone)
        told.append("refund_unsettled" in [line["event"] for line in logs])

    assert told == [False, False, True, True]


async def test_an_answer_that_is_lost_after_the_money_moved_refunds_once(desk: Desk):
    await late_payment(desk)
    losing = Losing(desk.provider)
    stage = desk.stage_with(Providers([losing]))

    for _ in range(3):
        await desk.make_due()
        await send_refunds_once(stage)
    assert losing.refunds == 1, "a query finds the refund; it is not sent twice"
    await eventually(lambda: _is(desk, "succeeded"))
    facts = [kind for kind, _ in await desk.facts()]
    assert facts.count("refund_succeeded") == 1


async def test_a_refund_that_the_provider_refuses_waits_for_an_operator(desk: Desk):
    number = await late_payment(desk)
    await desk.execute("UPDATE refunds SET amount_minor = $1", PRICE_MINOR + 1)

    await send_refunds_once(desk.stage)
    assert await _refund_state(desk) == "abnormal"
    await desk.make_due()
    assert await send_refunds_once(desk.stage) == 0
    assert (await desk.attempt(number)).refunded_minor == PRICE_MINOR


async def test_a_message_that_contradicts_the_refund_has_no_effect(desk: Desk):
    number = await late_payment(desk)
    (refund,) = await desk.refunds()
    await desk.execute("UPDATE refunds SET state = 'sent'")
    told = RefundMessage(
        number=refund["number"],
        payment_number=number,
        merchant_id=desk.provider.account.merchant_id,
        status=RefundStatus.SUCCEEDED,
        amount_minor=PRICE_MINOR,
        currency="CNY",
        provider_number="SBR1",
    )
    for change, status in (
        ({"amount_minor": PRICE_MINOR - 1}, 409),
        ({"currency": "USD"}, 409),
        ({"merchant_id": "another"}, 409),
        ({"payment_number": f"{number[:-2]}02"}, 409),
        ({"number": f"R{number}L02"}, 404),
        ({"number": "R1234567"}, 404),
    ):
        message = msgspec.structs.replace(told, **change)
        raw = desk.refund_callback(message, f"evt-{next(iter(change.items()))[0]}-{status}")
        assert (await desk.receive(raw)).status == status, change
        assert await _refund_state(desk) == "sent"

    raw = desk.refund_callback(told, "evt-true")
    assert [(await desk.receive(raw)).status for _ in range(2)] == [200, 200]
    assert await _refund_state(desk) == "succeeded"
    assert [kind for kind, _ in await desk.facts()].count("refund_succeeded") == 1


async def _is(desk: Desk, state: str) -> bool:
    return await _refund_state(desk) == state
