"""Orders end once: expired, cancelled or paid, never two of them."""

import asyncio
import itertools
from datetime import UTC, datetime

import pytest

from app.orders.closer import AttemptsSettled, Closer, CloserSettings
from app.orders.order import OrderReason, OrderState
from app.orders.store import (
    CloseAsked,
    MarkPaid,
    ask_to_close,
    claim_expired,
    close_orders,
    closing_orders,
    mark_paid,
    order_timeline,
    read_orders,
)
from tests.waiting import eventually

BEFORE_ALL = (0, 0, 0, 0)


@pytest.fixture
async def sold(shop):
    """Ten units; ann has two, bob one."""
    await shop.open()
    shop.ann = await shop.buy("ann", 2)
    shop.bob = await shop.buy("bob")
    await shop.flush()
    return shop


async def expire(shop, key):
    await shop.execute(
        "UPDATE orders SET pay_by = now() - interval '1 s', "
        "placed_at = placed_at - interval '1 minute' WHERE seq = $1",
        key.seq,
    )


async def pay(shop, key):
    async with shop.shard().transaction() as connection:
        return await mark_paid(connection, key, datetime.now(UTC), actor="test", detail={"n": 1})


async def cancel(shop, key, reason=OrderReason.CANCELLED_BY_SHOPPER):
    async with shop.shard().transaction() as connection:
        return await ask_to_close(connection, key, reason, actor="shopper")


async def close(shop, *keys):
    return await close_orders(shop.shard(), shop.sale.number, 0, keys)


async def state_of(shop, key):
    return (await read_orders(shop.shard(), [key]))[key].state


async def events_of(shop, key):
    return [event["event"] for event in await order_timeline(shop.shard(), key)]


# Expiry.


async def test_only_what_is_past_its_deadline_is_claimed(sold):
    assert await claim_expired(sold.shard(), 10) == 0
    await expire(sold, sold.bob)

    assert await claim_expired(sold.shard(), 10) == 1
    assert await claim_expired(sold.shard(), 10) == 0
    assert await state_of(sold, sold.ann) is OrderState.PENDING
    bob = (await read_orders(sold.shard(), [sold.bob]))[sold.bob]
    assert (bob.state, bob.reason) == (OrderState.CLOSING, OrderReason.EXPIRED)


async def test_an_expired_order_lets_go_of_everything_at_once(sold):
    await expire(sold, sold.ann)
    assert await sold.close_orders() == 2

    assert await state_of(sold, sold.ann) is OrderState.CLOSED
    assert await events_of(sold, sold.ann) == ["placed", "close_asked", "provider_closed"]
    assert (await sold.lease()).reserved == 1
    (row,) = await sold.rows("SELECT units_held FROM orders WHERE shopper = 'ann'")
    assert row["units_held"] == 0
    assert await sold.value("SELECT units_released FROM bucket_leases") == 2
    moves = await sold.rows(
        "SELECT units, shopper, order_seq, epoch, state FROM bucket_moves WHERE kind = 'return'"
    )
    assert [tuple(move.values()) for move in moves] == [(2, "ann", sold.ann.seq, 1, "asked")]
    assert await sold.at_rest() == ""
    assert await sold.remaining() == 9


async def test_the_return_carries_the_epoch_of_the_lease_and_not_of_the_order(sold):
    await sold.recover()
    await expire(sold, sold.ann)
    await sold.close_orders()

    (move,) = await sold.rows("SELECT epoch, order_epoch FROM bucket_moves WHERE kind = 'return'")
    assert tuple(move.values()) == (2, 1)
    assert await sold.at_rest() == ""
    assert await sold.remaining() == 9


@pytest.mark.parametrize("settled", [AttemptsSettled.UNKNOWN, AttemptsSettled.PAID])
async def test_while_a_payment_may_have_succeeded_the_units_stay_held(sold, settled):
    await expire(sold, sold.ann)
    sold.settled = settled
    assert await sold.close_orders() == 1
    assert await sold.close_orders() == 0

    assert await state_of(sold, sold.ann) is OrderState.CLOSING
    assert (await sold.lease()).reserved == 3
    sold.settled = AttemptsSettled.CLOSED
    assert await sold.close_orders() == 1


async def test_orders_that_cannot_end_do_not_keep_others_from_ending(shop):
    """The walk goes on past the unknown ones, a page at a time, and comes round again."""
    await shop.open(limit_per_shopper=1)
    keys = [await shop.buy(f"s{i}") for i in range(9)]
    await shop.flush()
    for key in keys:
        await cancel(shop, key)
    stuck = set(keys[:4])

    async def settle(asked):
        return {
            key: AttemptsSettled.UNKNOWN if key in stuck else AttemptsSettled.CLOSED
            for key in asked
        }

    shop.settle = settle
    closer = shop.new_closer(shop.shard(), orders_max=2)
    done = [await closer.close_once() for _ in range(6)]
    assert sum(done) == 5
    assert await closing_orders(shop.shard(), BEFORE_ALL, 10) == keys[:4]


async def test_a_provider_that_hangs_holds_up_only_the_orders_it_knows_of(shop):
    """One order's attempt is asked about and no answer comes: the others end meanwhile."""
    await shop.open(limit_per_shopper=1)
    keys = [await shop.buy(f"s{i}") for i in range(6)]
    await shop.flush()
    asked = asyncio.Event()

    async def none_but_the_first(wanted):
        return set(wanted) - {keys[0]}

    async def hang(wanted):
        assert wanted == [keys[0]]
        asked.set()
        await asyncio.Event().wait()

    settings = CloserSettings(settle_wait_ms=50)
    index = shop.shard().index
    closer = Closer(shop.shard(), shop.duties[index], none_but_the_first, hang, settings)
    for held, batch in enumerate((keys[:3], keys[3:])):
        for key in batch:
            await cancel(shop, key)
        async with asyncio.timeout(10):
            assert await closer.close_once() == len(batch) - (held == 0)
    assert asked.is_set()
    assert await closing_orders(shop.shard(), BEFORE_ALL, 10) == keys[:1]
    await closer.close()


async def test_providers_are_not_asked_in_every_pass_about_what_they_do_not_know_yet(sold):
    """Passes come every fifth of a second, and a payment may stay unknown for a quarter hour."""
    await cancel(sold, sold.ann)
    asked = []

    async def settle(keys):
        asked.extend(keys)
        return dict.fromkeys(keys, AttemptsSettled.UNKNOWN)

    sold.settle = settle
    closer = sold.new_closer(sold.shard())
    for _ in range(20):
        await closer.close_once()
    assert asked == [sold.ann]

    await cancel(sold, sold.bob)
    await closer.close_once()
    assert asked == [sold.ann, sold.bob], "another order does not wait with it"

    async def ask_again():
        await closer.close_once()
        return asked.count(sold.ann) > 1

    await eventually(ask_again)


async def test_closing_again_closes_nothing(sold):
    await cancel(sold, sold.ann)
    assert await close(sold, sold.ann, sold.bob) == 1
    for _ in range(3):
        assert await close(sold, sold.ann, sold.bob) == 0

    assert (await sold.lease()).reserved == 1
    assert await sold.value("SELECT count(*) FROM bucket_moves WHERE kind = 'return'") == 1


async def test_many_closers_at_once_close_each_order_once(shop):
    await shop.open(stock=50, limit_per_shopper=1)
    keys = [await shop.buy(f"s{i}") for i in range(30)]
    await shop.flush()
    for key in keys:
        await cancel(shop, key)
    closed = await asyncio.gather(*(close(shop, *keys) for _ in range(6)))

    assert sum(closed) == 30
    assert await shop.at_rest() == ""
    assert await shop.remaining() == 50


async def test_nothing_closed_is_no_change_of_the_lease(sold):
    await close(sold, sold.ann)
    await close(sold)

    assert (await sold.lease()).reserved == 3


# Payment against closing.


async def test_a_pending_order_is_paid_once(sold):
    assert await pay(sold, sold.ann) is MarkPaid.PAID
    assert await pay(sold, sold.ann) is MarkPaid.ALREADY_PAID
    assert await cancel(sold, sold.ann) is CloseAsked.REFUSED
    assert await close(sold, sold.ann) == 0
    assert await events_of(sold, sold.ann) == ["placed", "payment_captured"]


async def test_a_closing_order_can_still_be_paid_and_keeps_its_units(sold):
    assert await cancel(sold, sold.ann) is CloseAsked.CLOSING
    assert await cancel(sold, sold.ann) is CloseAsked.ALREADY_ENDING
    assert await pay(sold, sold.ann) is MarkPaid.PAID

    assert await close(sold, sold.ann) == 0
    order = (await read_orders(sold.shard(), [sold.ann]))[sold.ann]
    assert (order.state, order.reason) == (OrderState.PAID, None)
    assert (await sold.lease()).reserved == 3


async def test_a_closed_order_is_never_paid(sold):
    await cancel(sold, sold.ann)
    await close(sold, sold.ann)

    assert await pay(sold, sold.ann) is MarkPaid.CLOSED
    assert await cancel(sold, sold.ann) is CloseAsked.ALREADY_ENDING
    assert await state_of(sold, sold.ann) is OrderState.CLOSED


async def test_what_is_not_there_is_missing(sold):
    nobody = sold.ann._replace(seq=99)

    assert await pay(sold, nobody) is MarkPaid.MISSING
    assert await cancel(sold, nobody) is CloseAsked.MISSING


async def test_a_hundred_races_of_close_and_capture_each_have_one_winner(shop):
    await shop.open(stock=100, limit_per_shopper=1)
    keys = await asyncio.gather(*(shop.buy(f"s{i}") for i in range(100)))
    await shop.flush()
    await asyncio.gather(*(cancel(shop, key) for key in keys))
    turns = itertools.cycle([True, False])

    async def race(key, pays_first):
        acts = [pay(shop, key), close(shop, key)]
        results = await asyncio.gather(*(acts if pays_first else reversed(acts)))
        paid, closed = results if pays_first else reversed(results)
        return {(MarkPaid.PAID, 0): "paid", (MarkPaid.CLOSED, 1): "closed"}[paid, closed]

    winners = await asyncio.gather(
        *(race(key, pays_first) for key, pays_first in zip(keys, turns, strict=False))
    )
    found = await read_orders(shop.shard(), keys)
    assert [found[key].state for key in keys] == winners
    assert set(winners) == {"paid", "closed"}
    assert (await shop.lease()).reserved == winners.count("paid")
    assert await shop.at_rest() == ""


async def test_a_hundred_races_of_cancel_and_capture_end_in_one_state(shop):
    await shop.open(stock=100, limit_per_shopper=1)
    keys = await asyncio.gather(*(shop.buy(f"s{i}") for i in range(100)))
    await shop.flush()

    async def race(key):
        asked, paid = await asyncio.gather(cancel(shop, key), pay(shop, key))
        closed = await close(shop, key)
        return asked, paid, closed

    for asked, paid, closed in await asyncio.gather(*map(race, keys)):
        assert (paid, closed) == (MarkPaid.PAID, 0)
        assert asked in {CloseAsked.CLOSING, CloseAsked.REFUSED}
    assert await shop.at_rest() == ""
