"""
Row 17: what a shard that is away costs, however long it stays away.

The stream grows to the backlog's limit and no further, and the flusher holds no more than a
batch: both are measured, and everything drains when the shard is back.
"""

from pathlib import Path

import pytest

from app.inventory.recovery import RecoverySettings
from tests.faults.big_bucket import fill
from tests.stores.inventory.test_coordinator import frozen
from tests.stores.orders.running_sale import running_sale
from tests.waiting import eventually

pytestmark = pytest.mark.faults

BACKLOG = 50_000
ORDER_BYTES_MAX = 260  # of Valkey's memory, accepted and unflushed (docs/HOT_PATH.md §8)
FLUSHER_BYTES_MAX = 64 * 2**20  # batches that are read, tried and given up again
PAGE_BYTES = 4_096
TRIES = 3  # of the flusher, each as long as a statement may take


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


async def memory(shop) -> int:
    return (await shop.redis.info("memory"))["used_memory"]


async def test_row_17__a_shard_stays_away__the_backlog_is_full_and_memory_stays_where_it_is(
    stores, shards, deployment, report
):
    async with running_sale(shards, stores.redis_url, stores.redis_api_url, deployment) as shop:
        await shop.open(stock=4 * BACKLOG, limit_per_shopper=1)
        await shop.recover(settings=RecoverySettings(backlog_orders_max=BACKLOG))
        before, resident = await memory(shop), resident_bytes()
        async with frozen(shop.shard(), "orders"), shop.flushing():
            assert await fill(shop, stores.redis_url, 0, 2 * BACKLOG) == BACKLOG
            full = await memory(shop)
            await eventually(lambda: len(shop.notes.failures) >= TRIES, within_seconds=60)
            assert await fill(shop, stores.redis_url, 2 * BACKLOG, 3 * BACKLOG) == 0
            later = await memory(shop)
            held = resident_bytes() - resident
        report(
            f"{BACKLOG} unflushed orders, no more: Valkey {(full - before) / BACKLOG:.0f} B an "
            f"order, {later - full:+} B after {len(shop.notes.failures)} tries of the flusher; "
            f"this process, flusher and all, {held / 2**20:+.0f} MiB"
        )
        assert (full - before) / BACKLOG <= ORDER_BYTES_MAX
        assert abs(later - full) <= (full - before) / 10
        assert held <= FLUSHER_BYTES_MAX

        await eventually(lambda: is_drained(shop), within_seconds=60)
        assert await memory(shop) < full
        assert await fill(shop, stores.redis_url, 3 * BACKLOG, 3 * BACKLOG + 10) == 10
        assert await shop.at_rest() == ""


async def is_drained(shop) -> bool:
    await shop.flush()
    state = await shop.state()
    return state.orders_placed == state.orders_flushed == BACKLOG
