"""Paid and closed at the same instant, a thousand times: paid, or closed with one full refund."""

import asyncio
from collections import Counter

from app.kernel.ids import OrderKey
from app.orders.closer import AttemptsSettled
from app.orders.store import close_orders
from app.payments.audit import audit_payments
from app.payments.expiry import settle_attempts
from app.payments.intent import Attempt
from tests.stores.payments.desk import PRICE_MINOR, Desk
from tests.waiting import eventually

TURNS = 1_000
AT_ONCE = 25
ENDS = """
SELECT o.state::text AS order_state, p.state::text AS attempt_state,
       p.captured_minor - p.refunded_minor AS kept,
       (SELECT count(*) FROM refunds r WHERE r.attempt_number = p.number
        AND r.late AND r.amount_minor = p.captured_minor) AS full_refunds,
       (SELECT count(*) FROM refunds r WHERE r.attempt_number = p.number) AS refunds
FROM payment_attempts p JOIN orders o USING (sale, bucket, epoch, seq)"""


async def test_a_thousand_orders_are_paid_or_closed_with_one_full_refund(desk: Desk):
    async with asyncio.TaskGroup() as tasks:
        room = asyncio.Semaphore(AT_ONCE)
        for turn in range(TURNS):
            tasks.create_task(_race(desk, turn, room))

    await eventually(lambda: _is_decided(desk), within_seconds=60)
    ends = Counter(tuple(row.values()) for row in await desk.rows(ENDS))
    assert ends.total() == TURNS
    assert ends.keys() <= {("paid", "paid", PRICE_MINOR, 0, 0), ("closed", "paid_late", 0, 1, 1)}
    assert len(ends) == 2, "one side always won: nothing raced"
    equations = await audit_payments(desk.stage.shards)
    assert [str(one) for one in equations if one.holds is False] == []


async def _race(desk: Desk, turn: int, room: asyncio.Semaphore) -> None:
    """Let the shopper pay while the closer closes; who starts first alternates."""
    async with room:
        key = await desk.place()
        attempt = await desk.start(key)
        await desk.set_closing(key)
        pay = _pay(desk, attempt, by_gateway=turn % 3 != 0)
        acts = (pay, _close(desk, key)) if turn % 2 else (_close(desk, key), pay)
        await asyncio.gather(*acts)


async def _pay(desk: Desk, attempt: Attempt, *, by_gateway: bool) -> None:
    """
    Pay at the gateway, or tell of a payment that the gateway denies when it is asked.

    The second is a provider whose left hand does not know what its right hand does; a
    payment that comes after the close was confirmed looks the same to us.
    """
    if by_gateway:
        await desk.play(attempt.number)
    else:
        raw = desk.callback(desk.message(attempt), f"evt-{attempt.number}")
        assert (await desk.receive(raw)).status == 200


async def _close(desk: Desk, key: OrderKey) -> None:
    settled = await settle_attempts(desk.stage, [key])
    if settled[key] is AttemptsSettled.CLOSED:
        await close_orders(desk.shard, key.sale, key.bucket, [key])


async def _is_decided(desk: Desk) -> bool:
    """Whether the money of every attempt was told and taken, in time or late."""
    (row,) = await desk.rows(
        "SELECT count(*) AS open FROM payment_attempts WHERE state NOT IN ('paid', 'paid_late')"
    )
    return bool(row["open"] == 0)
