"""
A sale in the middle of its life, written by hand into both stores.

Two buckets on two shards; bucket 0 has every kind of order: of an older epoch,
pending, paid, shipped, closed, and one that became a dead letter. Everything adds
up, so that each test can break exactly one thing.
"""

from typing import Final

from redis.asyncio import Redis

from app.inventory.bucket import BucketState, Gate
from app.storage.keys import BucketKeys
from app.storage.shards import Shard, Shards

SALE: Final = 1
SALE_ID: Final = "spring"
GRANTED: Final = 30

INSERT_SALE: Final = """
INSERT INTO sales (sale, id, kind, title, sku, merchant, price_minor, currency, stock_total, pool,
                   limit_per_shopper, opens_at, closes_at, pay_within_seconds, buckets, state)
VALUES (1, 'spring', 'seckill', 'Spring', 'tea', '', 100, 'CNY', 100, 40, 2,
        now() - interval '1 hour', now() + interval '1 hour', 900, 2, 'published')"""

INSERT_GRANTS: Final = """
INSERT INTO grants (sale, bucket, units, state) VALUES (1, 0, 30, 'applied'), (1, 1, 30, 'applied')
RETURNING bucket, id"""

INSERT_DIRECTORY: Final = """
INSERT INTO sale_directory (id, sale, home_shard, idempotency_key, fingerprint)
VALUES ('spring', 1, 1, 'k', '')"""

INSERT_LEASE: Final = """
INSERT INTO bucket_leases
    (sale, bucket, epoch, state, granted, home_shard, sale_id, kind, sku, merchant, price_minor,
     currency, limit_per_shopper, opens_at, closes_at, pay_within_seconds, epoch_opened_at)
VALUES (1, $1, 2, 'open', 30, 1, 'spring', 'seckill', 'tea', '', 100, 'CNY', 2,
        now() - interval '1 hour', now() + interval '1 hour', 900, now() - interval '50 minutes')"""

INSERT_APPLIED: Final = """
INSERT INTO applied_grants (sale, bucket, grant_id, units) VALUES (1, $1, $2, 30)"""

INSERT_ORDERS: Final = """
INSERT INTO orders (sale, bucket, epoch, seq, shopper, sku, quantity, units_held, price_minor,
                    total_minor, currency, merchant, state, reason, placed_at, recorded_at, pay_by,
                    paid_at, closed_at, key_hash, fingerprint, last_event)
SELECT 1, 0, epoch, seq, shopper, 'tea', quantity,
       CASE WHEN state = 'closed' THEN 0 ELSE quantity END, 100, 100 * quantity, 'CNY', '',
       state::order_state, CASE WHEN state = 'closed' THEN 'expired'::order_reason END,
       now() - interval '40 minutes',
       now() - CASE epoch WHEN 1 THEN interval '55 minutes' ELSE interval '40 minutes' END,
       now() - interval '25 minutes',
       CASE WHEN state IN ('paid', 'shipped') THEN now() - interval '30 minutes' END,
       CASE WHEN state = 'closed' THEN now() - interval '20 minutes' END,
       decode(md5(shopper), 'hex'), '\\x0102030405060708', events
FROM (VALUES (1, 0, 'fay', 1, 'pending', 1), (2, 0, 'ann', 1, 'pending', 1),
             (2, 1, 'bob', 2, 'paid', 2), (2, 2, 'cat', 1, 'closed', 3),
             (2, 4, 'eve', 1, 'shipped', 3)) AS o (epoch, seq, shopper, quantity, state, events)"""

INSERT_EVENTS: Final = """
INSERT INTO order_events (sale, bucket, epoch, seq, number, event, state, actor)
SELECT 1, 0, epoch, seq, number, event, state::order_state, 'test'
FROM (VALUES (1, 0, 1, 'placed', 'pending'), (2, 0, 1, 'placed', 'pending'),
             (2, 1, 1, 'placed', 'pending'), (2, 1, 2, 'payment_captured', 'paid'),
             (2, 2, 1, 'placed', 'pending'), (2, 2, 2, 'close_asked', 'closing'),
             (2, 2, 3, 'provider_closed', 'closed'),
             (2, 4, 1, 'placed', 'pending'), (2, 4, 2, 'payment_captured', 'paid'),
             (2, 4, 3, 'shipped', 'shipped')) AS e (epoch, seq, number, event, state)"""

INSERT_LETTER: Final = """
INSERT INTO dead_letters (kind, reason, sale, bucket, epoch, seq, shopper, units, key_hash, raw)
VALUES ('order', 'key_taken', 1, 0, 2, 3, 'dan', 1, decode(md5('dan'), 'hex'), '')"""

INSERT_RETURNS: Final = """
INSERT INTO bucket_moves (sale, bucket, kind, units, shopper, order_epoch, order_seq, key_hash,
                          epoch, state)
VALUES (1, 0, 'return', 1, 'cat', 2, 2, NULL, 2, 'done'),
       (1, 0, 'return', 1, 'dan', 2, 3, decode(md5('dan'), 'hex'), 2, 'done')"""

COUNT_ORDERS: Final = """
UPDATE bucket_leases
SET reserved = 5, stream_ms = 1000, orders_seen = 5, units_flushed = 5, units_released = 2
WHERE bucket = 0"""

TABLES: Final = """
sales, sale_directory, sale_writes, grants, pool_credits, applied_grants, bucket_leases,
bucket_moves, orders, order_events, dead_letters, payment_attempts, refunds, provider_events,
outbox"""

HEALTHY: Final = (INSERT_ORDERS, INSERT_EVENTS, INSERT_LETTER, INSERT_RETURNS, COUNT_ORDERS)


class AuditedSale:
    """The sale, and handles to break it with."""

    def __init__(self, shards: Shards, redis: Redis, deployment: str) -> None:
        self.shards = shards
        self.redis = redis
        self.deployment = deployment
        self.keys = BucketKeys(deployment, SALE, 0, 2)
        self.past = BucketKeys(deployment, SALE, 0, 1)

    @property
    def shard(self) -> Shard:
        """The sale's home, and bucket 0's."""
        return self.shards.home(SALE)

    async def write(self) -> None:
        await self.execute(INSERT_SALE, shard=self.shard)
        await self.execute(INSERT_DIRECTORY, shard=self.shards.directory)
        async with self.shard.connection() as connection:
            grants = await connection.fetch(INSERT_GRANTS)
        for bucket, grant in grants:
            shard = self.shards.of(SALE, bucket)
            await self.execute(INSERT_LEASE, bucket, shard=shard)
            await self.execute(INSERT_APPLIED, bucket, grant, shard=shard)
        for statement in HEALTHY:
            await self.execute(statement)
        await self._write_redis()

    async def rewrite(self) -> None:
        """Begin again, without what refers to an order: far quicker than fresh databases."""
        for shard in self.shards.all:
            await self.execute(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE", shard=shard)
        async for key in self.redis.scan_iter(f"{self.deployment}:*"):
            await self.redis.delete(key)
        await self.write()

    async def execute(self, statement: str, *arguments: object, shard: Shard | None = None) -> None:
        """Run one statement on bucket 0's shard, constraints permitting."""
        async with (shard or self.shard).connection() as connection:
            await connection.execute(statement, *arguments)

    async def set_state(self, **fields: str | int) -> None:
        """Overwrite fields of bucket 0's state."""
        await self.redis.hset(self.keys.state, mapping=fields)

    async def add_entry(self, entry_id: str, entry: bytes) -> None:
        await self.redis.xadd(self.keys.orders, {b"b": entry}, id=entry_id)

    async def _write_redis(self) -> None:
        await self._write_state(self.keys, remaining=25, orders_placed=5, units_placed=6)
        await self.set_state(units_returned=2, orders_flushed=5)
        await self.redis.hset(self.keys.shoppers, mapping={"ann": 1, "bob": 2, "eve": 1, "fay": 1})
        await self.add_entry("1000-0", b"flushed")
        await self.redis.xtrim(self.keys.orders, minid="1000-1", approximate=False)
        other = BucketKeys(self.deployment, SALE, 1, 2)
        await self._write_state(other, remaining=GRANTED, orders_placed=0, units_placed=0)

    async def _write_state(
        self, keys: BucketKeys, *, remaining: int, orders_placed: int, units_placed: int
    ) -> None:
        state = BucketState(
            remaining=remaining,
            limit=2,
            opens_at_ms=1,
            closes_at_ms=2**42,
            gate=Gate.OPEN,
            fenced=0,
            lease_until_ms=2**42,
            incarnation="0123456789abcdef",
            orders_placed=orders_placed,
            units_placed=units_placed,
            units_returned=0,
            orders_flushed=0,
            backlog_max=1_000,
        )
        await self.redis.hset(keys.state, mapping=state.to_fields())
