"""Money that an order has taken goes back by one refund record, and never more than was paid."""

import asyncio

import pytest

from app.orders.order import OrderReason
from app.orders.store import lock_order
from app.payments.intent import RefundReason
from app.payments.refund_requests import RefundRefused, RefundWish, request_refund
from tests.stores.payments.desk import PRICE_MINOR, Desk

SET_STATE = "UPDATE orders SET state = $1::order_state"
UNITS = "SELECT units_held, refunded_minor, reason::text, state::text FROM orders"
LEASE = "SELECT reserved, units_released FROM bucket_leases"


async def paid_order(desk: Desk):
    key = await desk.place()
    attempt = await desk.start(key)
    raw = desk.callback(desk.message(attempt), f"evt-{attempt.number}")
    assert (await desk.receive(raw)).status == 200
    return key


async def ask(desk: Desk, key, amount_minor=None, reason=RefundReason.CANCELLED):
    async with desk.shard.transaction() as connection:
        order = await lock_order(connection, key)
        assert order is not None
        wish = RefundWish(
            amount_minor=amount_minor,
            reason=reason,
            order_reason=OrderReason.CANCELLED_BY_SHOPPER,
            actor="shopper",
        )
        return await request_refund(connection, order, wish)


async def test_the_whole_before_shipping_ends_the_order_and_lets_go_of_its_units(desk: Desk):
    key = await paid_order(desk)

    refund = await ask(desk, key)

    assert refund.amount_minor == PRICE_MINOR
    assert await desk.rows(UNITS) == [
        {
            "units_held": 0,
            "refunded_minor": PRICE_MINOR,
            "reason": "cancelled_by_shopper",
            "state": "refunded",
        }
    ]
    assert await desk.rows(LEASE) == [{"reserved": 99, "units_released": 1}]
    [move] = await desk.rows("SELECT kind::text, units, state::text FROM bucket_moves")
    assert move == {"kind": "return", "units": 1, "state": "asked"}
    facts = await desk.facts()
    assert facts[-1] == ("refund_requested", refund.number)
    assert await ask(desk, key) is RefundRefused.NOT_PAID


async def test_parts_that_make_the_whole_end_it_and_a_cent_more_is_refused(desk: Desk):
    key = await paid_order(desk)

    first = await ask(desk, key, 1_000)
    assert await ask(desk, key, PRICE_MINOR - 999) is RefundRefused.EXCEEDS_PAID
    assert await desk.order_state(key) == "paid"
    second = await ask(desk, key, PRICE_MINOR - 1_000)

    assert first.number != second.number
    assert await desk.order_state(key) == "refunded"
    assert sum(one["amount_minor"] for one in await desk.refunds()) == PRICE_MINOR


@pytest.mark.parametrize("state", ["shipped", "completed"])
async def test_after_shipping_money_goes_back_and_the_units_stay_sold(desk: Desk, state):
    key = await paid_order(desk)
    await desk.execute(SET_STATE, state)

    await ask(desk, key, reason=RefundReason.AFTER_SALE)

    [row] = await desk.rows(UNITS)
    assert (row["state"], row["units_held"], row["refunded_minor"]) == (state, 1, PRICE_MINOR)
    assert await desk.rows("SELECT id FROM bucket_moves") == []
    assert await ask(desk, key, 1) is RefundRefused.NOT_PAID


async def test_an_order_that_nobody_paid_gives_nothing_back(desk: Desk):
    key = await desk.place()

    assert await ask(desk, key) is RefundRefused.NOT_PAID
    assert await desk.refunds() == []


async def test_many_who_want_the_whole_at_once_get_it_once(desk: Desk):
    key = await paid_order(desk)

    asked = await asyncio.gather(*(ask(desk, key) for _ in range(8)))

    assert sum(one is RefundRefused.NOT_PAID for one in asked) == 7
    assert len(await desk.refunds()) == 1
    assert await desk.rows(LEASE) == [{"reserved": 99, "units_released": 1}]
