"""A true message that no rule can apply is kept for a person, once, and can be tried again."""

from collections import Counter

import pytest

from app.kernel.ids import OrderKey
from app.orders.letters.store import (
    LetterFilter,
    LetterKind,
    drop_letters,
    list_letters,
    retry_letters,
)
from app.payments.intent import AttemptState
from app.payments.letters import NOT_CONFIGURED, retry_callbacks_once
from tests.stores.payments.desk import Desk

CALLBACKS = LetterFilter(kind=LetterKind.CALLBACK)
FIRST_OF_A_PROVIDER_THAT_IS_GONE = """
UPDATE outbox SET payload = payload || '{"provider": "gone"}'
WHERE id = (SELECT min(id) FROM outbox WHERE kind = 'callback')"""


async def letters(desk: Desk):
    return [
        letter
        for shard in desk.stage.shards.all
        for letter in await list_letters(shard, CALLBACKS, 0, 100)
    ]


async def reasons(desk: Desk):
    return [letter["reason"] for letter in await letters(desk)]


async def retry(desk: Desk) -> int:
    """What the operator's route and then the worker do."""
    for shard in desk.stage.shards.all:
        await retry_letters(shard, CALLBACKS, actor="ann", reason="fixed", dry_run=False)
    return await retry_callbacks_once(desk.stage)


async def second_capture(desk: Desk) -> bytes:
    attempt = await desk.start(await desk.place())
    await desk.receive(desk.callback(desk.message(attempt), "evt-1"))
    return desk.callback(desk.message(attempt, provider_number="SBPother"), "evt-2")


async def unknown_number(desk: Desk) -> bytes:
    attempt = await desk.start(await desk.place())
    return desk.callback(desk.message(attempt, number="0" * 28), "evt-2")


async def one_cent_less(desk: Desk) -> bytes:
    attempt = await desk.start(await desk.place())
    cheaper = desk.message(attempt, amount_minor=attempt.amount_minor - 1)
    return desk.callback(cheaper, "evt-2")


async def reused_notification(desk: Desk) -> bytes:
    first = await desk.start(await desk.place())
    second = await desk.start(await desk.place())
    await desk.receive(desk.callback(desk.message(first), "evt-1"))
    return desk.callback(desk.message(second), "evt-1")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (second_capture, "second_capture"),
        (unknown_number, "unknown_number"),
        (one_cent_less, "amount_mismatch"),
        (reused_notification, "notification_reused"),
    ],
)
async def test_a_message_that_cannot_be_applied_is_kept_once(desk: Desk, message, reason):
    raw = await message(desk)
    for _ in range(3):
        await desk.receive(raw)

    (letter,) = await letters(desk)
    assert letter["reason"] == reason
    assert letter["detail"]["provider"] == "sandbox"
    assert letter["detail"]["notification_id"] in {"evt-1", "evt-2"}
    assert "outbox_id" in letter["detail"]


async def test_a_forged_message_leaves_no_letter(desk: Desk):
    raw = await second_capture(desk)
    await desk.receive(raw, desk.signed(raw, keys={"k1": b"x" * 32}))

    assert await letters(desk) == []


async def test_a_retry_applies_the_message_once_its_cause_is_gone(desk: Desk):
    raw = await one_cent_less(desk)
    await desk.receive(raw)
    await desk.execute("UPDATE payment_attempts SET amount_minor = amount_minor - 1")

    assert await retry(desk) == 1
    assert await letters(desk) == []
    (row,) = await desk.rows("SELECT number, state FROM payment_attempts")
    assert row["state"] == AttemptState.PAID
    assert await desk.order_state(OrderKey(1, 0, 1, 0)) == "paid"
    assert len(await desk.facts()) == 1


async def test_a_retry_that_changes_nothing_leaves_a_letter_again(desk: Desk):
    await desk.receive(await second_capture(desk))

    assert await retry(desk) == 1
    assert await reasons(desk) == ["second_capture"]
    assert await retry(desk) == 1
    assert await reasons(desk) == ["second_capture"]
    assert len(await desk.facts()) == 1
    assert await retry_callbacks_once(desk.stage) == 0


async def test_a_letter_that_was_dropped_does_not_come_back(desk: Desk):
    raw = await unknown_number(desk)
    await desk.receive(raw)
    for shard in desk.stage.shards.all:
        await drop_letters(shard, CALLBACKS, actor="ann", reason="not ours", dry_run=False)
    await desk.receive(raw)

    assert await letters(desk) == []


async def test_a_letter_whose_provider_is_gone_keeps_no_other_waiting(desk: Desk):
    """It becomes a letter again: its provider is configured once more, or somebody drops it."""
    gone, other = await one_cent_less(desk), await one_cent_less(desk)
    await desk.receive(gone)
    await desk.receive(other.replace(b"evt-2", b"evt-3"))
    await desk.execute(FIRST_OF_A_PROVIDER_THAT_IS_GONE)
    await desk.execute("UPDATE payment_attempts SET amount_minor = amount_minor - 1")

    assert await retry(desk) == 2

    assert await reasons(desk) == [NOT_CONFIGURED]
    rows = await desk.rows("SELECT state FROM payment_attempts")
    assert Counter(row["state"] for row in rows) == {"open": 1, "paid": 1}


async def test_a_letter_about_an_account_that_is_gone_keeps_no_other_waiting(desk: Desk):
    gone, other = await one_cent_less(desk), await one_cent_less(desk)
    await desk.receive(gone)
    await desk.receive(other.replace(b"evt-2", b"evt-3"))
    await desk.execute(
        "UPDATE payment_attempts SET amount_minor = amount_minor - 1, "
        "account = CASE WHEN number = $1 THEN 'gone' ELSE account END",
        min(row["number"] for row in await desk.rows("SELECT number FROM payment_attempts")),
    )

    assert await retry(desk) == 2

    assert await reasons(desk) == [NOT_CONFIGURED]
