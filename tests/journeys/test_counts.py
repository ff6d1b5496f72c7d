"""
What an order may cost, in things that can be counted: a guard, not a benchmark.

A fixed load is sold over HTTP, first while the worker stands still, then while it flushes. How
fast that is does not matter here. What is pinned are script calls, bytes, rows and wake-ups, each
with room for a machine on which the processes take turns badly; whoever stops gathering clicks
into batches, or batches into transactions, is outside.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields

import pytest
from redis.asyncio import Redis

from app.orders.flusher import FlusherSettings
from app.storage.redis import open_redis
from loadtest.bench.deck import Deck
from loadtest.bench.drivers import make_driver
from loadtest.bench.job import ClosedLoop, Job
from loadtest.tokens import Signer
from tests.journeys.service import RunningService
from tests.journeys.shop import Promises, Shop, visit
from tests.real_stores import session
from tests.waiting import eventually

ORDERS = 2_000  # of each half
CONNECTIONS = 128
REFUSED = 512

# Seen, for the 2 000 orders of one half: 52 batches, 1 drain, 20 flushes in a stream; and for one
# order: 123 bytes of log, 145 of memory unflushed, 100 flushed, 735 of Postgres's log.
BATCHES_MAX = ORDERS // 5
OTHER_CALLS_MAX = 200  # leases renewed, empty batches
LOG_BYTES_MAX = 190
UNFLUSHED_BYTES_MAX = 210
FLUSHED_BYTES_MAX = 120
DRAINS_MAX = 10
WAL_BYTES_MAX = 1_000

# Rows of Postgres, told by the tables' own counters: each flush moves one lease row once.
COUNT_ROWS = """
SELECT coalesce(sum(n_tup_ins) FILTER (WHERE relname = 'orders'), 0)::int AS orders,
       coalesce(sum(n_tup_ins) FILTER (WHERE relname = 'order_events'), 0)::int AS events,
       coalesce(sum(n_tup_upd) FILTER (WHERE relname = 'bucket_leases'), 0)::int AS leases,
       pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal_bytes
FROM pg_stat_user_tables"""


@dataclass(frozen=True)
class Counts:
    """What both stores have done so far."""

    batches_placed: int  # calls of place_orders that accepted something: one stream entry each
    script_calls: int
    wake_ups: int
    trims: int
    log_bytes: int
    orders: int
    events: int
    leases_moved: int  # once by each flush, now and then by the coordinator
    wal_bytes: int

    def since(self, earlier: "Counts") -> "Counts":
        pairs = ((getattr(self, one.name), getattr(earlier, one.name)) for one in fields(self))
        return Counts(*(now - before for now, before in pairs))


class Counting:
    """A service of its own, and everything about it that can be counted."""

    def __init__(self, service: RunningService, shop: Shop, redis: Redis) -> None:
        self.service = service
        self.shop = shop
        self.redis = redis
        self._shoppers = 0

    async def sell(self, sale: str, count: int) -> None:
        """Sell so many orders; who hears that the service is overloaded makes place for another."""
        while count:
            answers = await self.click(sale, count)
            assert answers.keys() <= {"placed", "overloaded"}, answers
            count -= answers["placed"]

    async def click(self, sale: str, count: int) -> Counter[str]:
        """Let shoppers who were never here click, 128 at a time; return answers by name."""
        port = int(self.shop.run.public.rpartition(":")[2])
        deck = Deck(
            host=f"127.0.0.1:{port}",
            sale=sale,
            signer=Signer.from_keys(self.shop.run.auth_keys),
            run="c",
            first=self._shoppers,
            count=count,
        )
        self._shoppers += count
        job = Job(port=port, connections=CONNECTIONS, pace=ClosedLoop(), deck=deck)
        return (await make_driver(job, deck.requests()).play()).totals

    async def counts(self, orders: int) -> Counts:
        """Count, once the statistics of Postgres know of so many orders."""

        async def known() -> dict[str, int]:
            rows = await self._count_rows()
            return rows if rows["orders"] >= orders else {}

        rows = await eventually(known, within_seconds=30)
        stats = await self.redis.info("commandstats")
        return Counts(
            batches_placed=_calls(stats, "xadd"),
            script_calls=_calls(stats, "evalsha"),
            wake_ups=_calls(stats, "publish"),
            trims=_calls(stats, "xtrim"),
            log_bytes=await self.log_bytes(),
            orders=rows["orders"],
            events=rows["events"],
            leases_moved=rows["leases"],
            wal_bytes=rows["wal_bytes"],
        )

    async def log_bytes(self) -> int:
        """Tell how long the append-only file is."""
        return int((await self.redis.info("persistence"))["aof_current_size"])

    async def memory_bytes(self) -> int:
        """Weigh every key of every bucket."""
        keys = [key async for key in self.redis.scan_iter()]
        return sum([await self.redis.memory_usage(key, samples=0) or 0 for key in keys])

    async def _count_rows(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for url in self.shop.run.shards:
            async with session(url) as connection:
                (row,) = await connection.fetch(COUNT_ROWS)
            # The log belongs to the server, the rows to its databases.
            total = {name: total.get(name, 0) + number for name, number in row.items()}
            total["wal_bytes"] = row["wal_bytes"]
        return total


def _calls(stats: dict[str, dict[str, int]], command: str) -> int:
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


@pytest.fixture
async def counting(own_service: RunningService) -> AsyncIterator[Counting]:
    await asyncio.to_thread(own_service.start)
    redis = open_redis(own_service.run.redis, client_name="test")
    async with visit(own_service.run) as shop:
        yield Counting(own_service, shop, redis)
    await redis.aclose()


async def test_what_an_order_may_cost(counting: Counting) -> None:
    shop = counting.shop
    sale = await shop.open_sale(stock=2 * ORDERS)
    await a_burst_is_cheap(counting, sale)
    await a_stream_is_cheap(counting, sale)
    await all_refused_write_nothing(counting, sale)
    await Promises(shop).hold()


async def a_burst_is_cheap(counting: Counting, sale: str) -> None:
    """Orders that nobody flushes, then a worker that finds them all."""
    empty_bytes = await counting.memory_bytes()
    with counting.service.frozen("worker"):
        before = await counting.counts(0)
        await counting.sell(sale, ORDERS)
        waiting = (await counting.counts(0)).since(before)
        unflushed_bytes = await counting.memory_bytes() - empty_bytes
    await counting.shop.until_flushed(sale)
    drained = (await counting.counts(ORDERS)).since(before)

    assert waiting.batches_placed <= BATCHES_MAX
    assert waiting.script_calls <= waiting.batches_placed + OTHER_CALLS_MAX
    assert waiting.log_bytes <= LOG_BYTES_MAX * ORDERS
    assert unflushed_bytes <= UNFLUSHED_BYTES_MAX * ORDERS
    assert await counting.memory_bytes() - empty_bytes <= FLUSHED_BYTES_MAX * ORDERS
    assert (drained.orders, drained.events) == (ORDERS, ORDERS)
    assert drained.leases_moved <= DRAINS_MAX
    assert drained.wal_bytes <= WAL_BYTES_MAX * ORDERS


async def a_stream_is_cheap(counting: Counting, sale: str) -> None:
    """Orders that are flushed while they come: gathered, told and trimmed together."""
    before, began = await counting.counts(ORDERS), time.monotonic()
    await counting.sell(sale, ORDERS)
    await counting.shop.until_flushed(sale)
    gathers = (time.monotonic() - began) * 1000 / FlusherSettings().gather_ms
    steady = (await counting.counts(2 * ORDERS)).since(before)

    assert steady.batches_placed <= BATCHES_MAX
    assert (steady.orders, steady.events) == (ORDERS, ORDERS)
    assert steady.wake_ups <= gathers + DRAINS_MAX
    assert steady.leases_moved <= steady.wake_ups + DRAINS_MAX
    assert steady.trims <= steady.wake_ups / 2 + DRAINS_MAX
    assert steady.log_bytes <= LOG_BYTES_MAX * ORDERS
    assert steady.wal_bytes <= WAL_BYTES_MAX * ORDERS


async def all_refused_write_nothing(counting: Counting, sale: str) -> None:
    """With nobody else at work, a sold-out sale leaves the append-only file as it is."""
    with counting.service.frozen("worker"), counting.service.frozen("coordinator"):
        before = await counting.log_bytes()
        answers = await counting.click(sale, REFUSED)
        assert answers.keys() <= {"sold_out", "overloaded"}, answers
        assert answers["sold_out"] > REFUSED / 2
        assert await counting.log_bytes() == before
