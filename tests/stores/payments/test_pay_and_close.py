"""
Paid and closed at the same instant, a thousand times: paid, or closed with one full refund.

On a crowded machine a connection may be waited for until that is given up, and a pass of the
closer may end before its provider has answered. Both leave the outcome open and are repeated, as
the worker and the provider repeat them; who wins is no question of how long a pass may take.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from typing import Final

from app.kernel.errors import Unavailable
from app.kernel.ids import OrderKey
from app.orders.closer import AttemptsSettled
from app.orders.store import close_orders
from app.payments.audit import audit_payments
from app.payments.expiry import settle_attempts
from app.payments.intent import Attempt
from tests.stores.payments.desk import PRICE_MINOR, Desk
from tests.waiting import eventually

TURNS: Final = 1_000
AT_ONCE: Final = 25
BEGUN_AT_ONCE: Final = 4  # fewer than the pool has connections: none waits for one
SECONDS: Final = 60.0  # to decide everything, however crowded the machine is
ENDS = """
SELECT o.state::text AS order_state, p.state::text AS attempt_state,
       p.captured_minor - p.refunded_minor AS kept,
       (SELECT count(*) FROM refunds r WHERE r.attempt_number = p.number
        AND r.late AND r.amount_minor = p.captured_minor) AS full_refunds,
       (SELECT count(*) FROM refunds r WHERE r.attempt_number = p.number) AS refunds
FROM payment_attempts p JOIN orders o USING (sale, bucket, epoch, seq)"""


async def test_a_thousand_orders_are_paid_or_closed_with_one_full_refund(desk: Desk):
    unhurried = replace(desk.stage.settings, settle_ms_max=int(SECONDS * 1000))
    desk.stage = replace(desk.stage, settings=unhurried)
    async with asyncio.TaskGroup() as tasks:
        room = asyncio.Semaphore(BEGUN_AT_ONCE)
        begun = [tasks.create_task(_begin(desk, room)) for _ in range(TURNS)]
    async with asyncio.TaskGroup() as tasks:
        room = asyncio.Semaphore(AT_ONCE)
        for turn, one in enumerate(begun):
            tasks.create_task(_race(desk, turn, *one.result(), room))

    await eventually(lambda: _is_decided(desk), within_seconds=SECONDS)
    ends = Counter(tuple(row.values()) for row in await desk.rows(ENDS))
    assert ends.total() == TURNS
    assert ends.keys() <= {("paid", "paid", PRICE_MINOR, 0, 0), ("closed", "paid_late", 0, 1, 1)}
    assert len(ends) == 2, "one side always won: nothing raced"
    equations = await audit_payments(desk.stage.shards)
    assert [str(one) for one in equations if one.holds is False] == []


async def _begin(desk: Desk, room: asyncio.Semaphore) -> tuple[OrderKey, Attempt]:
    """Leave an order closing whose payment is open."""
    async with room:
        key = await desk.place()
        attempt = await desk.start(key)
        await desk.set_closing(key)
    return key, attempt


async def _race(
    desk: Desk, turn: int, key: OrderKey, attempt: Attempt, room: asyncio.Semaphore
) -> None:
    """Let the shopper pay while the closer closes; who starts first alternates."""
    async with room:
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

        async def acknowledged() -> bool:
            status = (await desk.receive(raw)).status
            assert status in {200, 503}, status
            return status == 200

        await eventually(acknowledged, within_seconds=SECONDS)


async def _close(desk: Desk, key: OrderKey) -> None:
    """Do what the closer does, pass after pass, until the provider has answered."""

    async def has_ended() -> bool:
        with contextlib.suppress(Unavailable):
            settled = await settle_attempts(desk.stage, [key])
            if settled[key] is AttemptsSettled.CLOSED:
                await close_orders(desk.shard, key.sale, key.bucket, [key])
            return settled[key] is not AttemptsSettled.UNKNOWN
        return False

    await eventually(has_ended, within_seconds=SECONDS)


async def _is_decided(desk: Desk) -> bool:
    """Whether the money of every attempt was told and taken, in time or late."""
    (row,) = await desk.rows(
        "SELECT count(*) AS open FROM payment_attempts WHERE state NOT IN ('paid', 'paid_late')"
    )
    return bool(row["open"] == 0)
