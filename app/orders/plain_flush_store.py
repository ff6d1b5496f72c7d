"""
The plain flush: nearly every batch, in one statement that is its own transaction.

It writes a batch in which every order is new, sound and covered by the lease, and which follows
the committed offset and count without a gap. Anything else, groups included, changes nothing
here and is left to app/orders/flush_store.py, which knows what to do about it
(docs/HOT_PATH.md §6). Columns travel as few parameters: hashes joined to one string each, what
no order has left out (docs/decisions/0007-plain-flush.md).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Final

import asyncpg

from app.orders.flush_report import FlushReport, Position
from app.orders.order import PLACED_EVENT
from app.orders.stream import (
    FINGERPRINT_BYTES,
    KEY_HASH_BYTES,
    PlacementRequest,
    RawEntry,
    StreamEntry,
)
from app.storage.shards import Shard

# The UPDATE is lock and fence in one: a second flusher waits for the row, and then finds
# another offset. What does not fit under the lease is not written either. A key that another
# order owns is an error here: this statement never skips a row. pay_by is made and judged on
# one clock, Postgres's (docs/HOT_PATH.md §6 step 2).
WRITE_PLAINLY: Final = f"""
WITH lease AS (
    UPDATE bucket_leases
    SET reserved = reserved + $8, units_flushed = units_flushed + $8, orders_seen = $7,
        stream_ms = $9, stream_seq = $10
    WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND stream_ms = $4 AND stream_seq = $5
      AND orders_seen = $6 AND state <> 'closed' AND kind <> 'group'
      AND reserved + $8 <= granted
    RETURNING sale, bucket, epoch, sku, price_minor, currency, merchant, pay_within_seconds
), placed AS (
    INSERT INTO orders (sale, bucket, epoch, seq, shopper, sku, quantity, units_held, price_minor,
                        total_minor, currency, merchant, state, placed_at, pay_by, key_hash,
                        fingerprint, reference)
    SELECT l.sale, l.bucket, l.epoch, $6 + o.place - 1, o.shopper, l.sku, o.quantity, o.quantity,
           l.price_minor, l.price_minor * o.quantity, l.currency, l.merchant, 'pending',
           o.placed_at, greatest(o.placed_at, now()) + make_interval(secs => l.pay_within_seconds),
           substring($14::bytea FROM o.place * {KEY_HASH_BYTES} - {KEY_HASH_BYTES - 1}
                     FOR {KEY_HASH_BYTES}),
           substring($15::bytea FROM o.place * {FINGERPRINT_BYTES} - {FINGERPRINT_BYTES - 1}
                     FOR {FINGERPRINT_BYTES}),
           nullif(o.reference, '')
    FROM lease l CROSS JOIN (
        SELECT place::int, shopper, quantity, reference,
               timestamptz 'epoch' + placed_at_ms * interval '1 ms' AS placed_at
        FROM unnest($11::text[], $12::int[], $13::bigint[], $16::text[])
             WITH ORDINALITY AS u (shopper, quantity, placed_at_ms, reference, place)
    ) AS o
), noted AS (
    INSERT INTO order_events (sale, bucket, epoch, seq, number, event, state, actor)
    SELECT l.sale, l.bucket, l.epoch, seq, 1, '{PLACED_EVENT}', 'pending', 'flusher'
    FROM lease l CROSS JOIN generate_series($6::bigint, $7::bigint - 1) AS seq
)
SELECT true FROM lease"""


async def flush_plainly(
    shard: Shard,
    position: Position,
    entries: Sequence[StreamEntry | RawEntry],
) -> FlushReport | None:
    """
    Write a batch that has nothing special about it, whole.

    Returns:
        None if it is not such a batch; then nothing was written.

    Raises:
        ShardUnavailable: no answer; the batch was written whole or not at all.
    """
    batch = _sound_entries(position, entries)
    if batch is None:
        return None
    orders = list(chain.from_iterable(entry.orders for entry in batch))
    units = sum(order.quantity for order in orders)
    seen, offset = position.orders_seen + len(orders), batch[-1].entry_id
    if not await _is_written(shard, position, (seen, units, *offset, *_columns(batch, orders))):
        return None
    after = replace(position, offset=offset, orders_seen=seen)
    return FlushReport(after, orders_seen=seen, rows=len(orders), units=units)


def _sound_entries(
    position: Position, entries: Sequence[StreamEntry | RawEntry]
) -> list[StreamEntry] | None:
    expected = position.orders_seen
    batch = []
    for entry in entries:
        if isinstance(entry, RawEntry) or entry.orders_placed_before != expected:
            return None
        if any(order.group for order in entry.orders):
            return None
        expected += len(entry.orders)
        batch.append(entry)
    return batch


async def _is_written(shard: Shard, position: Position, after: Sequence[object]) -> bool:
    """Whether the lease row stood where the batch was read, and took all of it."""
    before = (
        position.sale,
        position.bucket,
        position.epoch,
        *position.offset,
        position.orders_seen,
    )
    async with shard.connection() as connection:
        try:
            return await connection.fetchval(WRITE_PLAINLY, *before, *after) is not None
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            return False


def _columns(
    batch: Sequence[StreamEntry], orders: Sequence[PlacementRequest]
) -> tuple[object, ...]:
    """Give $11 to $16: the orders by column; a column that is empty throughout has no rows."""
    key_hashes, fingerprints, shoppers, quantities, references, _ = zip(*orders, strict=True)
    placed_at_ms = [repeat(entry.placed_at_ms, len(entry.orders)) for entry in batch]
    return (
        shoppers,
        quantities,
        list(chain.from_iterable(placed_at_ms)),
        b"".join(key_hashes),
        b"".join(fingerprints),
        references if any(references) else (),
    )
