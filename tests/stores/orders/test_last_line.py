"""What holds whoever runs the closing twice, too late, or against a row that moved on."""

import asyncpg
import pytest

from app.kernel.clock import instant
from app.orders.order import OrderReason
from app.orders.store import MarkPaid, ask_to_close, close_orders, mark_paid
from tests.stores.orders.running_sale import RunningSale

PAID_AT = instant(1_790_000_000_000)


async def closing_order(shop: RunningSale):
    await shop.open()
    key = await shop.buy("ann", 2)
    await shop.flush()
    async with shop.shard().transaction() as connection:
        await ask_to_close(connection, key, OrderReason.EXPIRED, actor="test")
    return key


async def test_an_order_is_closed_once(shop: RunningSale):
    key = await closing_order(shop)
    closed = [await close_orders(shop.shard(), key.sale, key.bucket, [key]) for _ in range(2)]

    assert closed == [1, 0]
    await shop.move()
    assert await shop.remaining() == 10


async def test_an_order_paid_meanwhile_is_not_closed(shop: RunningSale):
    key = await closing_order(shop)
    async with shop.shard().transaction() as connection:
        paid = await mark_paid(connection, key, PAID_AT, actor="test", detail={})
    assert paid is MarkPaid.PAID

    assert await close_orders(shop.shard(), key.sale, key.bucket, [key]) == 0
    assert await shop.value("SELECT state FROM orders") == "paid"
    assert (await shop.lease()).reserved == 2


async def test_postgres_reserves_no_unit_beyond_the_lease(shop: RunningSale):
    await shop.open()
    for reserved in (11, -1):
        with pytest.raises(asyncpg.CheckViolationError, match="bucket_leases_never_oversell"):
            await shop.execute("UPDATE bucket_leases SET reserved = $1", reserved)
