"""How the end of an attempt is learnt when nobody tells us: enquiry and closer."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import cast

from app.orders.closer import AttemptsSettled
from app.payments.enquiry import enquire_once
from app.payments.expiry import settle_attempts
from app.payments.intent import AttemptState
from app.payments.provider import Provider
from app.payments.stage import Providers
from tests.stores.payments.desk import Desk
from tests.stores.payments.gateways import Hanging, Renamed, Silent

SECOND_MS = 1_000
HOUR_MS = 3_600 * SECOND_MS


async def test_the_enquiry_finds_a_payment_that_nobody_told_us_of(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.play(attempt.number, callback="never")
    await desk.make_due()

    assert await enquire_once(desk.stage) == 1

    assert (await desk.attempt(attempt.number)).state is AttemptState.PAID
    assert await desk.order_state(key) == "paid"
    assert await desk.outcomes() == ["paid"]
    assert await enquire_once(desk.stage) == 0


async def test_a_callback_after_the_enquiry_pays_nothing_more(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.play(attempt.number, callback="never")
    await desk.make_due()
    await enquire_once(desk.stage)

    told = await desk.provider.query(attempt.reference())
    assert told.value is not None
    message = desk.message(attempt, provider_number=told.value.provider_number)
    assert (await desk.receive(desk.callback(message))).status == 200
    assert await desk.outcomes() == ["paid", "already_applied"]
    assert len(await desk.facts()) == 1


async def test_the_enquiry_asks_again_while_the_shopper_thinks(desk: Desk):
    attempt = await desk.start(await desk.place())
    await desk.make_due()
    assert await enquire_once(desk.stage) == 1

    asked = await desk.attempt(attempt.number)
    assert (asked.state, asked.queries) == (AttemptState.OPEN, 1)
    (row,) = await desk.rows("SELECT next_query_at FROM payment_attempts")
    assert row["next_query_at"] == desk.stage.now() + timedelta(milliseconds=SECOND_MS)


async def test_an_attempt_whose_create_call_was_lost_is_closed_after_its_expiry(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    # As if the create call had never arrived: the gateway does not know this number.
    lost = f"{attempt.number[:-2]}09"
    await desk.execute("UPDATE payment_attempts SET number = $1, state = 'created'", lost)
    await desk.make_due()

    await enquire_once(desk.stage)
    assert (await desk.attempt(lost)).state is AttemptState.CREATED
    assert await settle_attempts(desk.stage, [key]) == {key: AttemptsSettled.UNKNOWN}

    desk.clock.advance(HOUR_MS)
    await desk.make_due()
    await enquire_once(desk.stage)
    assert (await desk.attempt(lost)).state is AttemptState.CLOSED


async def test_the_enquiry_closes_what_an_ended_order_left_open(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.close_order(key)
    await desk.make_due()

    await enquire_once(desk.stage)

    assert (await desk.attempt(attempt.number)).state is AttemptState.CLOSED


async def test_settling_tells_closed_paid_and_nothing_to_settle_apart(desk: Desk):
    without, unpaid, paid = [await desk.place() for _ in range(3)]
    await desk.start(unpaid)
    attempt = await desk.start(paid)
    await desk.play(attempt.number, callback="never")
    for key in (without, unpaid, paid):
        await desk.set_closing(key)

    assert await settle_attempts(desk.stage, [without, unpaid, paid]) == {
        without: AttemptsSettled.CLOSED,
        unpaid: AttemptsSettled.CLOSED,
        paid: AttemptsSettled.PAID,
    }
    assert await desk.order_state(paid) == "paid"
    assert await settle_attempts(desk.stage, []) == {}


async def test_an_attempt_whose_provider_hangs_does_not_hold_up_the_others(desk: Desk):
    """It costs a bounded time, and is unknown; its capture may still come."""
    hung, unpaid = [await desk.place() for _ in range(2)]
    attempts = [await desk.start(key) for key in (hung, unpaid)]
    for key in (hung, unpaid):
        await desk.set_closing(key)
    hanging = Hanging(desk.provider, attempts[0].number)
    stage = desk.stage_with(Providers([cast("Provider", hanging)]))

    async with asyncio.timeout(desk.stage.settings.settle_ms_max / 1000 * 5):
        ends = await settle_attempts(stage, [hung, unpaid])
    assert ends == {hung: AttemptsSettled.UNKNOWN, unpaid: AttemptsSettled.CLOSED}
    assert hanging.asked == 1


async def test_an_account_that_hangs_takes_no_turn_of_another_one(desk: Desk):
    hung = [await desk.place() for _ in range(12)]
    for key in hung:
        await desk.start(key)
    await desk.execute("UPDATE payment_attempts SET account = 'hung'")
    unpaid = await desk.place()
    await desk.start(unpaid)
    for key in (*hung, unpaid):
        await desk.set_closing(key)
    silent = Silent(desk.provider, replace(desk.provider.account, name="hung"))
    stage = replace(
        desk.stage_with(Providers([desk.provider, cast("Provider", silent)])),
        settings=replace(desk.stage.settings, calls_max=1, settle_ms_max=1_000),
    )

    ends = await settle_attempts(stage, [*hung, unpaid])

    assert ends.pop(unpaid) is AttemptsSettled.CLOSED
    assert set(ends.values()) == {AttemptsSettled.UNKNOWN}

    await desk.make_due()
    hurried = replace(stage, settings=replace(stage.settings, claim_ms=500))
    async with asyncio.timeout(10):
        assert await enquire_once(hurried) == len(hung), "it does not wait for them for ever"


async def test_a_provider_that_contradicts_us_leaves_the_order_waiting(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.play(attempt.number, callback="never")
    await desk.execute("UPDATE payment_attempts SET amount_minor = amount_minor + 1")
    await desk.set_closing(key)

    for _ in range(2):
        assert await settle_attempts(desk.stage, [key]) == {key: AttemptsSettled.UNKNOWN}
    assert await desk.outcomes() == ["amount_mismatch"]


async def test_money_is_taken_once_what_contradicted_it_is_mended(desk: Desk):
    """The record of a contradiction is not the answer for ever: an account can be put right."""
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.play(attempt.number, callback="never")
    wrong = Renamed(desk.provider, replace(desk.provider.account, app_id="of-another-app"))
    mistaken = desk.stage_with(Providers([cast("Provider", wrong)]))
    await desk.set_closing(key)
    for _ in range(2):
        assert await settle_attempts(mistaken, [key]) == {key: AttemptsSettled.UNKNOWN}
    assert await desk.outcomes() == ["account_mismatch"]

    assert await settle_attempts(desk.stage, [key]) == {key: AttemptsSettled.PAID}

    assert await desk.order_state(key) == "paid"
    assert await desk.outcomes() == ["account_mismatch", "paid"]
    assert len(await desk.facts()) == 1


async def test_a_shopper_who_declines_may_try_again(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.play(attempt.number, "decline", callback="never")
    await desk.make_due()
    await enquire_once(desk.stage)

    second = await desk.start(key, idempotency_key="key-another-0123456")
    assert (await desk.attempt(attempt.number)).state is AttemptState.CLOSED
    assert second.ordinal == 2
