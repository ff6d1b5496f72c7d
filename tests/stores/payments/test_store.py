"""Every rule that the tables hold on their own, broken once on purpose; and the claims."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from app.kernel.ids import OrderKey
from app.payments import store
from app.payments.intent import AttemptNumber, RefundEvent, RefundNumber, RefundReason
from tests.stores.payments.desk import PRICE_MINOR, Desk

COPY_ATTEMPT = """
INSERT INTO payment_attempts (number, sale, bucket, epoch, seq, ordinal, idempotency_key,
    fingerprint, provider, product, amount_minor, currency, state, provider_number,
    captured_minor, refunded_minor, expires_at)
SELECT {number}, sale, bucket, epoch, {seq}, {ordinal}, {idempotency_key}, fingerprint, provider,
       product, {amount_minor}, {currency}, {state}::attempt_state, {provider_number},
       {captured_minor}, {refunded_minor}, expires_at
FROM payment_attempts WHERE ordinal = 1"""
COPY_REFUND = """
INSERT INTO refunds (number, attempt_number, sale, bucket, epoch, seq, reason, late, amount_minor,
                     currency, state)
SELECT {number}, {attempt_number}, sale, bucket, epoch, seq, reason, {late}, {amount_minor},
       currency, state
FROM refunds"""


async def paid_late(desk: Desk) -> str:
    """Leave one late payment with its refund behind, and return the attempt's number."""
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.close_order(key)
    await desk.receive(desk.callback(desk.message(attempt)))
    return attempt.number


async def broken_rule(desk: Desk, statement: str) -> str:
    """Return the name of the rule that a statement breaks."""
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as broken:
        await desk.execute(statement)
    return str(broken.value.as_dict()["constraint_name"])


async def test_an_attempt_keeps_the_rules(desk: Desk):
    await desk.start(await desk.place())
    sound = {
        "number": "overlay(number PLACING '02' FROM 27)",
        "seq": "seq",
        "ordinal": "2",
        "idempotency_key": "'another'",
        "amount_minor": "amount_minor",
        "currency": "currency",
        "state": "'closed'",
        "provider_number": "NULL",
        "captured_minor": "0",
        "refunded_minor": "0",
    }
    for change, rule in (
        ({"number": "'short'"}, "payment_attempts_number_check"),
        ({"seq": "77"}, "payment_attempts_of_order"),
        ({"ordinal": "1"}, "payment_attempts_one_per_ordinal"),
        ({"ordinal": "100"}, "payment_attempts_ordinal_check"),
        ({"idempotency_key": "idempotency_key"}, "payment_attempts_one_per_key"),
        ({"amount_minor": "0"}, "payment_attempts_amount_minor_check"),
        ({"currency": "'cny'"}, "currency_code_check"),
        ({"state": "'open'"}, "payment_attempts_one_live"),
        ({"state": "'paid'"}, "payment_attempts_captured"),
        ({"captured_minor": "1"}, "payment_attempts_captured"),
        ({"refunded_minor": "1"}, "payment_attempts_refund_within_capture"),
    ):
        assert await broken_rule(desk, COPY_ATTEMPT.format(**{**sound, **change})) == rule, change
    await desk.execute(COPY_ATTEMPT.format(**sound))


async def test_an_order_is_paid_once_and_a_capture_counts_once(desk: Desk):
    first = await desk.start(await desk.place())
    await desk.receive(desk.callback(desk.message(first)))
    copy = {
        "number": "overlay(number PLACING '02' FROM 27)",
        "seq": "seq",
        "ordinal": "2",
        "idempotency_key": "'another'",
        "amount_minor": "amount_minor",
        "currency": "currency",
        "captured_minor": "1",
        "refunded_minor": "0",
    }
    again = {**copy, "state": "'paid'", "provider_number": "'other'"}
    shared = {**copy, "state": "'paid_late'", "provider_number": "provider_number"}
    assert await broken_rule(desk, COPY_ATTEMPT.format(**again)) == "payment_attempts_one_paid"
    assert await broken_rule(desk, COPY_ATTEMPT.format(**shared)) == (
        "payment_attempts_one_per_capture"
    )


async def test_a_refund_keeps_the_rules(desk: Desk):
    await paid_late(desk)
    sound = {
        "number": "'R1234567'",
        "attempt_number": "attempt_number",
        "late": "false",
        "amount_minor": "1",
    }
    for change, rule in (
        ({"number": "number"}, "refunds_pkey"),
        ({"number": "'R-1'"}, "refunds_number_check"),
        ({"attempt_number": "'none'"}, "refunds_attempt_number_fkey"),
        ({"late": "true"}, "refunds_one_per_late_payment"),
        ({"amount_minor": "0"}, "refunds_amount_minor_check"),
    ):
        assert await broken_rule(desk, COPY_REFUND.format(**{**sound, **change})) == rule


async def test_refunds_stay_within_what_was_captured(desk: Desk):
    number = AttemptNumber(await paid_late(desk))
    more = store.NewRefund(
        number=RefundNumber(f"R{number}L02"),
        attempt_number=number,
        order_key=OrderKey(1, 0, 1, 0),
        reason=RefundReason.LATE_PAYMENT,
        late=False,
        amount_minor=1,
        currency="CNY",
    )
    with pytest.raises(asyncpg.CheckViolationError, match="refund_within_capture"):
        async with desk.shard.transaction() as connection:
            await store.insert_refund(connection, more)
    assert len(await desk.refunds()) == 1


async def test_what_a_provider_said_is_never_changed(desk: Desk):
    await paid_late(desk)
    for change in (
        "UPDATE provider_events SET outcome = 'paid'",
        "DELETE FROM provider_events",
    ):
        with pytest.raises(asyncpg.RestrictViolationError, match="insert-only"):
            await desk.execute(change)
    (event,) = await desk.rows("SELECT raw, headers, kind, attempt_number FROM provider_events")
    assert b'"paid"' in event["raw"]
    assert event["kind"] == "payment"
    assert set(event["headers"]) == {"Sandbox-Key", "Sandbox-Timestamp", "Sandbox-Nonce"}


async def test_ten_workers_never_take_the_same_attempt(desk: Desk):
    for _ in range(30):
        await desk.start(await desk.place())
    await desk.make_due()

    taken = await asyncio.gather(*(store.claim_attempts(desk.shard, 5, 60_000) for _ in range(10)))

    numbers = [due.attempt.number for batch in taken for due in batch]
    assert len(numbers) == len(set(numbers)) == 30
    assert await store.claim_attempts(desk.shard, 5, 60_000) == []


async def test_an_attempt_taken_by_a_worker_that_died_comes_up_again(desk: Desk):
    await desk.start(await desk.place())
    await desk.make_due()
    assert len(await store.claim_attempts(desk.shard, 5, 60_000)) == 1
    await desk.make_due()  # a minute later
    (due,) = await store.claim_attempts(desk.shard, 5, 60_000)
    assert due.attempt.queries == 2


async def test_a_refund_moves_only_as_its_table_says(desk: Desk):
    number = RefundNumber(f"R{await paid_late(desk)}L01")
    async with desk.shard.connection() as connection:
        for event, moved in (
            (RefundEvent.PROVIDER_SUCCEEDED, False),  # nothing was sent
            (RefundEvent.SENDING, True),
            (RefundEvent.SENDING, False),
            (RefundEvent.ANSWER_LOST, True),
            (RefundEvent.SENDING, True),
            (RefundEvent.PROVIDER_REFUSED, True),
            (RefundEvent.SENDING, False),
            (RefundEvent.PROVIDER_SUCCEEDED, True),
            (RefundEvent.PROVIDER_REFUSED, False),
        ):
            assert await store.mark_refund(connection, number, event) is moved, event
    (refund,) = await desk.refunds()
    assert refund["settled_at"] is not None


async def test_a_refund_is_due_again_after_longer_and_longer_pauses(desk: Desk):
    await paid_late(desk)
    waits = []
    for _ in range(3):
        await desk.make_due()
        (refund,) = await store.claim_refunds(desk.shard, 5, (60_000, 300_000))
        assert refund.amount_minor == PRICE_MINOR
        (row,) = await desk.rows("SELECT next_try_at - now() AS wait FROM refunds")
        waits.append(round(row["wait"] / timedelta(minutes=1)))
    assert waits == [1, 5, 5]
