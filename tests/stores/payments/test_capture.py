"""What a provider's message does, and what not (docs/PAYMENTS.md §6, docs/CORRECTNESS.md §5)."""

import asyncio

import msgspec
import pytest

from app.payments.intent import AttemptState
from tests.stores.payments.desk import PRICE_MINOR, Desk
from tests.waiting import eventually

OTHER_KEYS = {"k1": b"x" * 32}


async def test_a_paid_callback_pays_the_order_once_and_leaves_one_fact(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    assert attempt.state is AttemptState.OPEN
    assert await desk.play(attempt.number) == 202

    await eventually(lambda: _has_state(desk, attempt.number, AttemptState.PAID))
    paid = await desk.attempt(attempt.number)
    assert (paid.captured_minor, paid.refunded_minor) == (PRICE_MINOR, 0)
    assert await desk.order_state(key) == "paid"
    assert await desk.facts() == [("payment_captured", attempt.number)]
    (fact,) = await desk.rows("SELECT payload FROM outbox")
    assert (
        fact["payload"].items()
        >= {
            "order_id": desk.order_id(key),
            "attempt": attempt.number,
            "provider": "sandbox",
            "merchant": "acme",
            "sale": 1,
            "amount_minor": PRICE_MINOR,
            "currency": "CNY",
        }.items()
    )


async def test_a_message_that_contradicts_us_has_no_effect_and_is_kept(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    table = (
        ({"amount_minor": PRICE_MINOR - 1}, "amount_mismatch"),
        ({"amount_minor": PRICE_MINOR + 1}, "amount_mismatch"),
        ({"amount_minor": 1}, "amount_mismatch"),
        ({"currency": "USD"}, "currency_mismatch"),
        ({"merchant_id": "another"}, "account_mismatch"),
        ({"app_id": "another"}, "account_mismatch"),
        ({"provider_number": None}, "account_mismatch"),
        ({"provider_number": ""}, "account_mismatch"),
    )
    for row, (change, _) in enumerate(table):
        raw = desk.callback(desk.message(attempt, **change), f"evt-{row}")
        first, second = await desk.receive(raw), await desk.receive(raw)
        assert first.status == 409, change
        assert first == second

    assert await desk.attempt(attempt.number) == attempt
    assert await desk.order_state(key) == "pending"
    assert await desk.facts() == []
    assert await desk.outcomes() == [outcome for _, outcome in table]


async def test_a_mismatch_does_not_stand_in_the_way_of_the_true_message(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.receive(desk.callback(desk.message(attempt, amount_minor=1), "evt-1"))

    reply = await desk.receive(desk.callback(desk.message(attempt), "evt-2"))

    assert reply.status == 200
    assert await desk.order_state(key) == "paid"


async def test_amounts_that_are_no_integers_are_refused_before_they_are_compared(desk: Desk):
    attempt = await desk.start(await desk.place())
    for amount in (b"8880.0", b"true", b'"8880"', b"8.88e3", b"0", b"-8880", b"9" * 30):
        raw = desk.callback(desk.message(attempt)).replace(b"8880", amount)
        assert (await desk.receive(raw)).status == 400, amount
    assert await desk.outcomes() == []


async def test_a_message_that_is_not_signed_by_the_provider_leaves_no_trace(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    raw = desk.callback(desk.message(attempt))
    headers = desk.signed(raw)
    unknown_key = {**headers, "Sandbox-Key": "k9"}
    half = {name: told for name, told in headers.items() if name != "Sandbox-Signature"}
    reordered = msgspec.json.encode(dict(reversed(msgspec.json.decode(raw).items())))

    forged = [
        await desk.receive(raw, desk.signed(raw, keys=OTHER_KEYS)),
        await desk.receive(raw, unknown_key),
        await desk.receive(raw, half),
        await desk.receive(raw, {}),
        await desk.receive(raw + b" ", headers),
        await desk.receive(reordered, headers),
    ]

    assert {reply.status for reply in forged} == {401}
    assert await desk.outcomes() == []
    assert await desk.order_state(key) == "pending"
    assert desk.counted_callbacks("bad_signature") == len(forged)


async def test_a_message_of_six_minutes_ago_is_stale_and_its_repetition_is_not(desk: Desk):
    attempt = await desk.start(await desk.place())
    raw = desk.callback(desk.message(attempt))
    old = desk.signed(raw)
    desk.clock.advance(301_000)

    assert (await desk.receive(raw, old)).status == 401
    assert (await desk.receive(raw)).status == 200


async def test_a_signed_message_about_nothing_of_ours_is_refused_and_not_kept(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    for number in (
        "0" * 28,
        "not-a-number",
        f"{attempt.number[:-2]}02",
        f"{attempt.number[:-2]}00",
    ):
        message = msgspec.structs.replace(desk.message(attempt), number=number)
        assert (await desk.receive(desk.callback(message))).status in (400, 404), number
    assert (await desk.receive(b'{"id": "x"}')).status == 400
    assert (await desk.receive(b"\xff")).status == 400
    assert await desk.outcomes() == []


async def test_twenty_identical_callbacks_at_once_have_one_effect_and_one_answer(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    raw = desk.callback(desk.message(attempt))

    replies = await asyncio.gather(*(desk.receive(raw) for _ in range(20)))

    assert {(reply.status, reply.body) for reply in replies} == {(200, b'{"code":"SUCCESS"}')}
    assert await desk.outcomes() == ["paid"]
    assert await desk.facts() == [("payment_captured", attempt.number)]
    (events,) = await desk.rows("SELECT count(*) FROM order_events")
    assert events["count"] == 1


async def test_two_notifications_of_one_payment_pay_once(desk: Desk):
    attempt = await desk.start(await desk.place())
    first = await desk.receive(desk.callback(desk.message(attempt), "evt-1"))
    second = await desk.receive(desk.callback(desk.message(attempt), "evt-2"))

    assert (first.status, second.status) == (200, 200)
    assert await desk.outcomes() == ["paid", "already_applied"]
    assert len(await desk.facts()) == 1


async def test_one_number_charged_twice_is_kept_for_somebody_to_look_at(desk: Desk):
    attempt = await desk.start(await desk.place())
    await desk.receive(desk.callback(desk.message(attempt), "evt-1"))
    again = desk.message(attempt, provider_number="SBPother")

    assert (await desk.receive(desk.callback(again, "evt-2"))).status == 200
    assert await desk.outcomes() == ["paid", "second_capture"]
    assert len(await desk.facts()) == 1


async def test_one_payment_of_the_provider_pays_only_one_attempt(desk: Desk):
    first = await desk.start(await desk.place())
    second = await desk.start(await desk.place())
    await desk.receive(desk.callback(desk.message(first), "evt-1"))
    stolen = desk.message(second, provider_number=f"SBP{first.number}")

    assert (await desk.receive(desk.callback(stolen, "evt-2"))).status == 409
    assert await desk.outcomes() == ["paid", "provider_number_taken"]


async def test_one_notification_id_cannot_speak_of_two_payments(desk: Desk):
    first = await desk.start(await desk.place())
    second = await desk.start(await desk.place())
    await desk.receive(desk.callback(desk.message(first), "evt-1"))

    assert (await desk.receive(desk.callback(desk.message(second), "evt-1"))).status == 409
    assert (await desk.attempt(second.number)).state is AttemptState.OPEN


async def test_messages_out_of_order_never_take_a_payment_back(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.receive(desk.callback(desk.message(attempt), "evt-1"))
    for number, state in enumerate(("closed", "not_paid", "paying"), start=2):
        late = desk.message(attempt, state=state, provider_number=None, paid_at=None)
        assert (await desk.receive(desk.callback(late, f"evt-{number}"))).status == 200

    assert (await desk.attempt(attempt.number)).state is AttemptState.PAID
    assert await desk.order_state(key) == "paid"
    assert await desk.outcomes() == ["paid", "no_effect", "no_effect", "no_effect"]


async def test_money_for_a_closed_order_is_refunded_once_and_holds_nothing(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.close_order(key)
    raws = [desk.callback(desk.message(attempt), f"evt-{n}") for n in (1, 1, 2)]

    replies = await asyncio.gather(*map(desk.receive, raws))

    assert {reply.status for reply in replies} == {200}
    late = await desk.attempt(attempt.number)
    assert late.state is AttemptState.PAID_LATE
    assert late.captured_minor == late.refunded_minor == PRICE_MINOR
    assert await desk.order_state(key) == "closed"
    (refund,) = await desk.refunds()
    assert refund["number"] == f"R{attempt.number}L01"
    assert (refund["late"], refund["amount_minor"], refund["reason"]) == (
        True, PRICE_MINOR, "late_payment",
    )  # fmt: skip
    assert await desk.facts() == [
        ("late_payment", attempt.number),
        ("refund_requested", refund["number"]),
    ]


async def test_the_second_of_two_paid_attempts_is_refunded(desk: Desk):
    key = await desk.place()
    first = await desk.start(key)
    second = await desk.start(key, idempotency_key="key-another-0123456")
    assert (await desk.attempt(first.number)).state is AttemptState.CLOSED

    replies = await asyncio.gather(
        desk.receive(desk.callback(desk.message(first), "evt-1")),
        desk.receive(desk.callback(desk.message(second), "evt-2")),
    )

    assert {reply.status for reply in replies} == {200}
    states = {(await desk.attempt(number)).state for number in (first.number, second.number)}
    assert states == {AttemptState.PAID, AttemptState.PAID_LATE}
    assert await desk.order_state(key) == "paid"
    (refund,) = await desk.refunds()
    assert (refund["reason"], refund["amount_minor"]) == ("double_payment", PRICE_MINOR)
    assert refund["number"].endswith("D01")


@pytest.mark.parametrize("state", ["created", "open"])
async def test_a_capture_counts_even_before_our_create_call_was_answered(desk: Desk, state: str):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.execute("UPDATE payment_attempts SET state = $1::attempt_state", state)

    assert (await desk.receive(desk.callback(desk.message(attempt)))).status == 200
    assert await desk.order_state(key) == "paid"


async def test_a_failure_before_the_commit_is_not_acknowledged(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    raw = desk.callback(desk.message(attempt))
    await desk.execute("ALTER TABLE outbox RENAME TO outbox_away")
    async with desk.client.post(
        f"{desk.url}/v1/callbacks/sandbox", data=raw, headers=desk.signed(raw)
    ) as response:
        assert response.status == 500
    await desk.execute("ALTER TABLE outbox_away RENAME TO outbox")

    assert await desk.order_state(key) == "pending"
    assert await desk.outcomes() == []
    assert (await desk.receive(raw)).status == 200
    assert await desk.order_state(key) == "paid"


async def _has_state(desk: Desk, number: str, state: AttemptState) -> bool:
    return (await desk.attempt(number)).state is state


@pytest.mark.parametrize("order_state", ["pending", "closed"])
async def test_money_that_went_back_before_we_heard_of_it_pays_nothing(
    desk: Desk, order_state: str
):
    """Somebody refunded it in the provider's console, or the provider itself did."""
    key = await desk.place()
    attempt = await desk.start(key)
    if order_state == "closed":
        await desk.close_order(key)
    raw = desk.callback(desk.message(attempt, state="refunded"))

    for _ in range(2):
        assert (await desk.receive(raw)).status == 200

    assert await desk.outcomes() == ["refunded_elsewhere"]
    assert (await desk.attempt(attempt.number)).state is AttemptState.CLOSED
    assert await desk.order_state(key) == order_state
    assert await desk.facts() == []
    assert await desk.refunds() == []


async def test_money_of_ours_that_went_back_stays_what_it_was(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.receive(desk.callback(desk.message(attempt), "evt-1"))

    await desk.receive(desk.callback(desk.message(attempt, state="refunded"), "evt-2"))

    assert await desk.outcomes() == ["paid", "already_applied"]
    assert await desk.order_state(key) == "paid"
