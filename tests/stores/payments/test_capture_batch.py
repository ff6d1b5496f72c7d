"""Callbacks that come together: the plain ones in one transaction, the others as ever."""

import asyncio
import hashlib
from dataclasses import replace

import asyncpg
import pytest

from app.payments.audit import audit_payments
from app.payments.capture import EventOutcome, apply_payment
from app.payments.capture_batch import CaptureBatches
from app.payments.intent import Attempt, AttemptState
from app.payments.provider import HttpReply, PaySnapshot, RefundStatus
from app.payments.providers.sandbox_wire import RefundMessage
from tests.stores.payments.desk import PRICE_MINOR, Desk

TRANSACTIONS = "SELECT count(DISTINCT recorded_at) AS number FROM provider_events"
# What is written of an attempt, its number and the moment of writing left out.
WRITTEN = (
    """SELECT state, replace(provider_number, number, '') AS provider_number, captured_minor,
              refunded_minor, next_query_at, settled_at IS NULL AS open
       FROM payment_attempts WHERE number = $1""",
    """SELECT o.state, o.reason, o.paid_at, o.last_event, o.units_held
       FROM orders o JOIN payment_attempts USING (sale, bucket, epoch, seq) WHERE number = $1""",
    """SELECT e.number, e.event, e.state, e.actor,
              e.detail = jsonb_build_object('payment_id', $1::text) AS named
       FROM order_events e JOIN payment_attempts p USING (sale, bucket, epoch, seq)
       WHERE p.number = $1""",
    """SELECT kind, payload - '{attempt,order_id}'::text[] AS payload,
              payload ->> 'attempt' = $1 AS named, done_at, attempts
       FROM outbox WHERE business_id = $1""",
    """SELECT provider, account, kind, outcome, event_at,
              (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(headers) AS k) AS names,
              notification_id = 'evt-' || attempt_number AS named
       FROM provider_events WHERE attempt_number = $1""",
)
INCOMPRESSIBLE = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(256))
LOCK_ORDER = """
SELECT FROM orders WHERE (sale, bucket, epoch, seq) = ($1, $2, $3, $4) FOR UPDATE"""


async def open_attempts(desk: Desk, count: int) -> list[Attempt]:
    return [await desk.start(await desk.place()) for _ in range(count)]


def paid(desk: Desk, attempt: Attempt, notification_id: str = "", **changes: object) -> bytes:
    told = desk.message(attempt, **changes)
    return desk.callback(told, notification_id or f"evt-{attempt.number}")


async def receive_together(desk: Desk, *raws: bytes) -> list[HttpReply]:
    """Hand all of them over in one turn of the loop: the plain ones are one batch."""
    return await asyncio.gather(*map(desk.receive, raws))


async def transactions(desk: Desk) -> int:
    (row,) = await desk.rows(TRANSACTIONS)
    return int(row["number"])


async def broken(desk: Desk) -> list[str]:
    equations = await audit_payments(desk.stage.shards)
    return [str(one) for one in equations if one.holds is False]


async def test_callbacks_that_come_together_are_committed_together(desk: Desk):
    attempts = await open_attempts(desk, 9)

    replies = await receive_together(desk, *(paid(desk, one) for one in attempts))

    assert {(reply.status, reply.body) for reply in replies} == {(200, b'{"code":"SUCCESS"}')}
    assert await transactions(desk) == 1
    for attempt in attempts:
        stored = await desk.attempt(attempt.number)
        assert (stored.state, stored.captured_minor) == (AttemptState.PAID, PRICE_MINOR)
        assert stored.provider_number == f"SBP{attempt.number}"
        assert await desk.order_state(attempt.order_key) == "paid"
    assert {("payment_captured", one.number) for one in attempts} <= set(await desk.facts())
    assert desk.counted_callbacks("paid") == 9
    assert await broken(desk) == []


async def test_a_batch_writes_what_one_message_alone_writes(desk: Desk):
    together, alone = await open_attempts(desk, 2)
    await receive_together(desk, paid(desk, together))
    raw = paid(desk, alone)
    verified = desk.provider.parse_notification(desk.signed(raw), raw)
    about = verified.event.about
    assert isinstance(about, PaySnapshot)
    await apply_payment(desk.stage, desk.provider, verified, about)

    for statement in WRITTEN:
        one, other = [await desk.rows(statement, attempt.number) for attempt in (together, alone)]
        assert one == other, statement


async def test_the_same_message_twice_in_a_batch_has_one_effect_and_one_answer(desk: Desk):
    twice, once = await open_attempts(desk, 2)
    raw = paid(desk, twice)

    replies = await receive_together(desk, raw, raw, paid(desk, once), raw)

    assert {(reply.status, reply.body) for reply in replies} == {(200, b'{"code":"SUCCESS"}')}
    assert await desk.outcomes() == ["paid"] * 2
    assert len(await desk.facts()) == 2
    (events,) = await desk.rows("SELECT count(*) FROM order_events")
    assert events["count"] == 2


async def test_a_contradiction_harms_nobody_in_its_batch(desk: Desk):
    good, bad, unknown, also_good = await open_attempts(desk, 4)
    stranger = f"{unknown.number[:-2]}77"

    replies = await receive_together(
        desk,
        paid(desk, good),
        paid(desk, bad, amount_minor=1),
        paid(desk, unknown, number=stranger, provider_number="SBPx"),
        paid(desk, also_good),
    )

    assert [reply.status for reply in replies] == [200, 409, 404, 200]
    assert sorted(await desk.outcomes()) == ["amount_mismatch", "paid", "paid"]
    assert await desk.order_state(bad.order_key) == "pending"
    assert await transactions(desk) == 2  # the good ones together, the bad one alone
    assert await broken(desk) == []


async def test_one_payment_of_the_provider_pays_one_attempt_of_a_batch(desk: Desk):
    first, second, third = await open_attempts(desk, 3)
    same = f"SBP{first.number}"

    replies = await receive_together(
        desk,
        paid(desk, first),
        paid(desk, second, provider_number=same),
        paid(desk, third, f"evt-{first.number}"),
    )

    assert [reply.status for reply in replies] == [200, 409, 409]
    states = [(await desk.attempt(one.number)).state for one in (first, second, third)]
    assert states == [AttemptState.PAID, AttemptState.OPEN, AttemptState.OPEN]


async def test_two_attempts_of_one_order_in_a_batch_pay_it_once(desk: Desk):
    key = await desk.place()
    earlier = await desk.start(key)
    later = await desk.start(key, idempotency_key="key-another-0123456")

    replies = await receive_together(desk, paid(desk, earlier), paid(desk, later))

    assert {reply.status for reply in replies} == {200}
    assert (await desk.attempt(earlier.number)).state is AttemptState.PAID  # it came first
    assert (await desk.attempt(later.number)).state is AttemptState.PAID_LATE
    (refund,) = await desk.refunds()
    assert refund["number"] == f"R{later.number}D01"
    assert await broken(desk) == []


async def test_a_payment_told_again_and_its_refund_come_together(desk: Desk):
    late, other = await open_attempts(desk, 2)
    await desk.close_order(late.order_key)
    await desk.receive(paid(desk, late))
    (refund,) = await desk.refunds()
    await desk.execute("UPDATE refunds SET state = 'sent'")
    told = RefundMessage(
        number=refund["number"],
        payment_number=late.number,
        merchant_id=desk.provider.account.merchant_id,
        status=RefundStatus.SUCCEEDED,
        amount_minor=PRICE_MINOR,
        currency="CNY",
        provider_number="SBR1",
    )

    replies = await receive_together(
        desk,
        paid(desk, late, "evt-again"),
        desk.refund_callback(told, "evt-refund"),
        paid(desk, other),
    )

    assert {reply.status for reply in replies} == {200}
    assert (await desk.refunds())[0]["state"] == "succeeded"
    assert sorted(await desk.outcomes()) == [
        "already_applied", "paid", "paid_late", "refund_succeeded",
    ]  # fmt: skip
    assert await broken(desk) == []


async def test_an_order_that_somebody_holds_keeps_no_other_waiting(desk: Desk):
    held, free = await open_attempts(desk, 2)
    async with desk.shard.transaction() as holder:
        await holder.execute(LOCK_ORDER, *held.order_key)
        waiting = asyncio.create_task(receive_together(desk, paid(desk, held)))
        others = await receive_together(desk, paid(desk, free))
        assert [reply.status for reply in others] == [200]
        assert not waiting.done()
    assert [reply.status for reply in await waiting] == [200]
    assert await desk.order_state(held.order_key) == "paid"


@pytest.mark.parametrize(
    ("unwritable", "error"),
    [
        pytest.param("evt-\x00", asyncpg.CharacterNotInRepertoireError, id="NUL"),
        pytest.param("evt-\ud800", asyncpg.DataError, id="half a pair"),
        pytest.param(INCOMPRESSIBLE, asyncpg.ProgramLimitExceededError, id="long"),
    ],
)
async def test_a_message_that_the_database_refuses_fails_alone(
    desk: Desk, unwritable: str, error: type[Exception]
):
    good, bad = await open_attempts(desk, 2)
    batches = CaptureBatches(desk.stage)
    verified = [
        desk.provider.parse_notification(desk.signed(raw), raw)
        for raw in (paid(desk, good), paid(desk, bad))
    ]
    event = replace(verified[1].event, notification_id=unwritable)
    verified[1] = replace(verified[1], event=event)

    told, failed = await asyncio.gather(
        *(batches.apply(desk.provider, one, one.event.about) for one in verified),
        return_exceptions=True,
    )

    assert told is EventOutcome.PAID
    assert isinstance(failed, error)
    assert await desk.order_state(bad.order_key) == "pending"
    assert await desk.order_state(good.order_key) == "paid"


@pytest.mark.parametrize("count", [200])
async def test_more_than_a_batch_holds_are_all_paid_once(desk: Desk, count: int):
    attempts = await open_attempts(desk, count)
    raws = [paid(desk, one) for one in attempts for _ in range(2)]

    replies = await asyncio.gather(*map(desk.receive, raws))

    assert {reply.status for reply in replies} == {200}
    assert len(await desk.facts()) == count
    assert await transactions(desk) < count / 10
    assert await broken(desk) == []
