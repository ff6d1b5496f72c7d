"""
What a shard does when it is in trouble is never taken for poison.

Deadlock, lock timeout, shutdown and a cancelled statement are made for real, by other sessions of
the same server, in the middle of a batch. Nothing is dead-lettered, nothing is written in part,
and the next flush writes everything.
"""

import asyncio
import contextlib

import asyncpg
import pytest

from app.kernel.errors import ShardUnavailable
from app.storage.shards import DatabaseSettings, Shards
from tests.stores.orders.running_sale import running_sale
from tests.waiting import eventually

HURRIED = DatabaseSettings(lock_timeout_ms=300, statement_timeout_ms=5_000)
COUNT_ROWS = "SELECT count(*) FROM orders"
COUNT_LETTERS = "SELECT count(*) FROM dead_letters"
COUNT_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'"""
FLUSHING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'doorbuster'
  AND wait_event_type = 'Lock'"""


# The flush waits for this row behind the lease row, which it holds by then.
WANT_THE_FIRST_KEY = """
INSERT INTO orders (sale, bucket, epoch, seq, shopper, sku, quantity, units_held, price_minor,
                    total_minor, currency, merchant, state, placed_at, pay_by, key_hash,
                    fingerprint)
SELECT sale, bucket, epoch, 0, 'somebody', sku, 1, 1, price_minor, price_minor, currency,
       merchant, 'pending', now(), now(), decode(repeat('00', 16), 'hex'),
       decode(repeat('00', 8), 'hex')
FROM bucket_leases WHERE bucket = 0"""


@pytest.fixture
async def shop(stores, shard_urls, deployment):
    """A sale of which five orders wait in the stream; locks are waited for 0.3 s."""
    shards = Shards(shard_urls, HURRIED)
    await shards.read_map()
    async with running_sale(shards, stores.redis_url, stores.redis_api_url, deployment) as opened:
        await opened.open()
        for number in range(5):
            await opened.buy(f"shopper-{number}")
        yield opened
    await shards.close()


@contextlib.asynccontextmanager
async def another_session(shop):
    """A session of somebody else, in a transaction that is rolled back at the end."""
    connection = await asyncpg.connect(shop.shard().url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        yield connection
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await transaction.rollback()
    finally:
        connection.terminate()


async def nothing_happened(shop):
    assert await shop.value(COUNT_ROWS) == 0
    assert await shop.value(COUNT_LETTERS) == 0


async def everything_flows(shop):
    assert await shop.flush() == 5
    assert await shop.value(COUNT_ROWS) == 5
    assert await shop.value(COUNT_LETTERS) == 0
    assert await shop.at_rest() == ""


async def waits_for_a_lock(shop):
    return await shop.value(COUNT_WAITING)


async def test_a_lock_that_is_not_let_go_in_time_is_waited_for_again(shop):
    async with another_session(shop) as other:
        await other.execute("SELECT 1 FROM bucket_leases FOR UPDATE")
        with pytest.raises(ShardUnavailable) as refusal:
            await shop.flush()
    assert refusal.value.fields["sqlstate"] == "55P03"
    await nothing_happened(shop)
    await everything_flows(shop)


async def test_a_deadlock_is_no_poison(shard_urls, shop):
    """The other session has the first order's key and then wants the lease row."""
    patient = Shards(shard_urls, DatabaseSettings())
    await patient.read_map()
    flusher = shop.new_flusher(patient.of(shop.sale.number, 0))
    async with another_session(shop) as other:
        await other.execute("SET LOCAL deadlock_timeout = '60s'")  # the flush is the victim
        await other.execute(WANT_THE_FIRST_KEY)
        flush = asyncio.create_task(flusher.flush_once())
        await eventually(lambda: waits_for_a_lock(shop))
        wish = asyncio.create_task(other.execute("SELECT 1 FROM bucket_leases FOR UPDATE"))
        with pytest.raises(ShardUnavailable) as refusal:
            await flush
        await wish
    assert refusal.value.fields["sqlstate"] == "40P01"
    await patient.close()
    await nothing_happened(shop)
    await everything_flows(shop)


@pytest.mark.parametrize(
    ("end_it", "sqlstates"),
    [
        ("SELECT pg_terminate_backend(pid) FROM ({flushing}) f", {"57P01", "08003", None}),
        ("SELECT pg_cancel_backend(pid) FROM ({flushing}) f", {"57014"}),
    ],
    ids=["shut down", "cancelled"],
)
async def test_a_session_ended_in_the_middle_is_no_poison(shard_urls, shop, end_it, sqlstates):
    patient = Shards(shard_urls, DatabaseSettings())
    await patient.read_map()
    flusher = shop.new_flusher(patient.of(shop.sale.number, 0))
    async with another_session(shop) as other:
        await other.execute("LOCK TABLE orders IN EXCLUSIVE MODE")
        flush = asyncio.create_task(flusher.flush_once())
        await eventually(lambda: waits_for_a_lock(shop))
        await shop.execute(end_it.format(flushing=FLUSHING))
        with pytest.raises(ShardUnavailable) as refusal:
            await flush
    assert refusal.value.fields.get("sqlstate") in sqlstates
    await patient.close()
    await nothing_happened(shop)
    await everything_flows(shop)
