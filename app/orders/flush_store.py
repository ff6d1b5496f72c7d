"""
The flush in Postgres: one transaction for lease, epoch, offset and orders.

A batch is written only onto exactly the epoch and offset that it was read from,
so writing it twice is impossible and repeating it after any crash is harmless.
The rules are docs/HOT_PATH.md §6; the order of its locks is lease row first, and the
orders it inserts are new, so it waits for nobody who waits for it.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from app.kernel.clock import instant
from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.orders.flush_report import FlushReport, Position, RecoverReason
from app.orders.groups.seating import BucketEpoch, GroupOrder, seat_orders
from app.orders.order import PLACED_EVENT
from app.orders.plain_flush_store import flush_plainly
from app.orders.stream import EntryId, PlacementRequest, RawEntry, StreamEntry
from app.storage.shards import Connection, Shard

SELECT_FLUSHABLE: Final = """
SELECT sale, bucket, epoch, stream_ms, stream_seq, orders_seen FROM bucket_leases
WHERE state <> 'closed' AND epoch > 0 ORDER BY sale, bucket"""

LOCK_LEASE: Final = """
SELECT sale, bucket, epoch, state, granted, reserved, stream_ms, stream_seq, orders_seen,
       recover_reason, kind
FROM bucket_leases WHERE sale = $1 AND bucket = $2 FOR UPDATE"""

# pay_by is made and judged on one clock, Postgres's (docs/HOT_PATH.md §6 step 2).
INSERT_ORDERS: Final = f"""
WITH inserted AS (
    INSERT INTO orders (sale, bucket, epoch, seq, shopper, sku, quantity, units_held, price_minor,
                        total_minor, currency, merchant, state, placed_at, pay_by, key_hash,
                        fingerprint, reference, group_id)
    SELECT l.sale, l.bucket, l.epoch, o.seq, o.shopper, l.sku, o.quantity, o.quantity,
           l.price_minor, l.price_minor * o.quantity, l.currency, l.merchant, 'pending',
           o.placed_at, greatest(o.placed_at, now()) + make_interval(secs => l.pay_within_seconds),
           o.key_hash, o.fingerprint, nullif(o.reference, ''), nullif(o.group_id, '')
    FROM bucket_leases l
    CROSS JOIN unnest($3::bigint[], $4::text[], $5::int[], $6::timestamptz[], $7::bytea[],
                      $8::bytea[], $9::text[], $10::text[])
      AS o (seq, shopper, quantity, placed_at, key_hash, fingerprint, reference, group_id)
    WHERE l.sale = $1 AND l.bucket = $2
    ON CONFLICT DO NOTHING
    RETURNING sale, bucket, epoch, seq
), noted AS (
    INSERT INTO order_events (sale, bucket, epoch, seq, number, event, state, actor)
    SELECT sale, bucket, epoch, seq, 1, '{PLACED_EVENT}', 'pending', 'flusher' FROM inserted
)
SELECT seq FROM inserted"""

SELECT_CLASHES: Final = """
SELECT wanted.seq, mine.seq IS NOT NULL AS is_replay, owner.epoch AS owner_epoch,
       owner.seq AS owner_seq
FROM unnest($4::bigint[], $5::text[], $6::bytea[]) AS wanted (seq, shopper, key_hash)
LEFT JOIN orders mine
  ON mine.sale = $1 AND mine.bucket = $2 AND mine.epoch = $3 AND mine.seq = wanted.seq
 AND mine.shopper = wanted.shopper AND mine.key_hash = wanted.key_hash
LEFT JOIN orders owner
  ON owner.sale = $1 AND owner.shopper = wanted.shopper AND owner.key_hash = wanted.key_hash"""

INSERT_LETTER: Final = """
INSERT INTO dead_letters
    (kind, reason, sale, bucket, epoch, seq, shopper, units, key_hash, raw, detail)
VALUES ('order', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT DO NOTHING"""

INSERT_LETTER_RETURN: Final = """
INSERT INTO bucket_moves (sale, bucket, kind, units, shopper, order_epoch, order_seq, key_hash,
                          owner_epoch, owner_seq, group_id, epoch, state)
VALUES ($1, $2, 'return', $3, $4, $5, $6, $7, $8, $9, nullif($10, ''), $5, 'asked')"""

UPDATE_LEASE: Final = """
UPDATE bucket_leases
SET reserved = reserved + $3, units_flushed = units_flushed + $3,
    units_released = units_released + $4, orders_seen = $5, stream_ms = $6, stream_seq = $7
WHERE sale = $1 AND bucket = $2"""

ASK_TO_RECOVER: Final = """
UPDATE bucket_leases SET recover_reason = $4
WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND state = 'open' AND recover_reason IS NULL
RETURNING epoch"""


class LetterReason(enum.StrEnum):
    """Why an accepted order was finally rejected (docs/CORRECTNESS.md §4)."""

    KEY_TAKEN = "key_taken"
    UNREADABLE = "unreadable"
    LOST_IN_RECOVERY = "lost_in_recovery"


class PlacedOrder(NamedTuple):
    """One order of an entry, with its place in the epoch."""

    seq: int
    placed_at: datetime
    request: PlacementRequest


class _LeaseOverrun(Exception):
    """The units of a batch do not fit under the lease; an open bucket must recover."""


@dataclass(slots=True)
class _Batch:
    """What is being gathered inside the transaction."""

    lease: asyncpg.Record
    report: FlushReport
    orders: list[PlacedOrder] = field(default_factory=list)
    parked: set[int] = field(default_factory=set)
    released: int = 0


async def flushable_positions(shard: Shard) -> list[Position]:
    """Return where each bucket of this shard has been flushed to."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_FLUSHABLE)
    return [
        Position(
            row["sale"],
            row["bucket"],
            row["epoch"],
            EntryId(row["stream_ms"], row["stream_seq"]),
            row["orders_seen"],
        )
        for row in rows
    ]


async def flush_batch(
    shard: Shard,
    position: Position,
    entries: Sequence[StreamEntry | RawEntry],
) -> FlushReport:
    """
    Write one batch of placed orders to the shard that owns them.

    Safe to repeat: a batch read from anywhere but the committed offset is fenced.

    Args:
        shard: the bucket's shard.
        position: from where the entries were read.
        entries: 1..n, oldest first, all of this bucket and epoch, without a hole.

    Returns:
        What was written, and the position to read on from. `recover` is set when
        the bucket was stopped and the coordinator must take a new epoch.

    Raises:
        ShardUnavailable: no answer; the batch was written whole or not at all.
    """
    report = await flush_plainly(shard, position, entries)
    if report is not None:
        return report
    try:
        async with shard.transaction() as connection:
            return await _flush(connection, position, entries)
    except _LeaseOverrun:
        return await _stop(shard, position, RecoverReason.LEASE_OVERRUN)


async def _flush(
    connection: Connection,
    position: Position,
    entries: Sequence[StreamEntry | RawEntry],
) -> FlushReport:
    lease = await connection.fetchrow(LOCK_LEASE, position.sale, position.bucket)
    if lease is None or not _stands_at(lease, position):
        return FlushReport(position, fenced=True)
    failpoint("flusher.after_lock")
    batch = _Batch(lease, FlushReport(position, orders_seen=lease["orders_seen"]))
    taken = await _take(connection, batch, entries)
    if taken is None:
        return batch.report
    await _insert(connection, batch)
    failpoint("flusher.after_insert")
    report = batch.report
    await connection.execute(
        UPDATE_LEASE,
        position.sale,
        position.bucket,
        report.units,
        batch.released,
        report.orders_seen,
        *taken,
    )
    failpoint("flusher.before_commit")
    report.position = replace(position, offset=taken, orders_seen=report.orders_seen)
    return report


async def stop_at_gap(shard: Shard, position: Position) -> None:
    """Stop a bucket that still stands where the stream has lost what follows."""
    async with shard.transaction() as connection:
        lease = await connection.fetchrow(LOCK_LEASE, position.sale, position.bucket)
        if lease is not None and _stands_at(lease, position):
            await _ask_to_recover(connection, position, RecoverReason.GAP)


def _stands_at(lease: asyncpg.Record, position: Position) -> bool:
    return (
        lease["state"] != "closed"
        and lease["epoch"] == position.epoch
        and (lease["stream_ms"], lease["stream_seq"]) == tuple(position.offset)
    )


async def _take(
    connection: Connection,
    batch: _Batch,
    entries: Sequence[StreamEntry | RawEntry],
) -> EntryId | None:
    """
    Gather the orders of the entries up to the first that cannot be passed.

    While the bucket is open, a gap or an unreadable entry ends the batch before
    it; standing first, it stops the bucket. While it drains nothing stops: what
    cannot be read becomes a letter, and a gap moves the count on (docs/HOT_PATH.md §6).

    Returns:
        The last entry taken, or None if there is none.
    """
    taken: EntryId | None = None
    draining = batch.lease["state"] == "draining"
    report = batch.report
    for entry in entries:
        fault = _fault_of(entry, report.orders_seen)
        if fault is not None and not draining:
            if taken is None:
                await _ask_to_recover(connection, report.position, fault)
                report.recover = fault
            return taken
        if isinstance(entry, RawEntry):
            await _park_unreadable(connection, batch, entry)
        else:
            if fault is not None:
                report.recover = fault
            batch.orders.extend(_placed_orders(entry))
            report.orders_seen = entry.orders_placed_before + len(entry.orders)
        taken = entry.entry_id
    return taken


def _fault_of(entry: StreamEntry | RawEntry, expected: int) -> RecoverReason | None:
    if isinstance(entry, RawEntry):
        return RecoverReason.UNREADABLE_ENTRY
    return None if entry.orders_placed_before == expected else RecoverReason.GAP


def _placed_orders(entry: StreamEntry) -> list[PlacedOrder]:
    placed_at = instant(entry.placed_at_ms)
    return [
        PlacedOrder(seq, placed_at, request)
        for seq, request in enumerate(entry.orders, entry.orders_placed_before)
    ]


async def _insert(connection: Connection, batch: _Batch) -> None:
    """Insert the gathered orders; what Postgres refuses of them becomes letters."""
    if not batch.orders:
        return
    room = batch.lease["granted"] - batch.lease["reserved"]
    inserted = await _insert_within(connection, batch, room)
    batch.report.rows = len(inserted)
    batch.report.units = sum(order.request.quantity for order in inserted)
    await _settle_clashes(connection, batch, inserted)
    if batch.lease["kind"] == "group":
        await _seat(connection, batch, inserted)
    batch.report.letters += len(batch.parked)


async def _seat(connection: Connection, batch: _Batch, inserted: Sequence[PlacedOrder]) -> None:
    """See to the groups that these orders open or join; letters' groups are over."""
    placed = [GroupOrder(order.seq, order.request.group, order.placed_at) for order in batch.orders]
    lease = batch.lease
    at = BucketEpoch(lease["sale"], lease["bucket"], lease["epoch"])
    await seat_orders(connection, at, placed, [order.seq for order in inserted])


async def _insert_within(connection: Connection, batch: _Batch, room: int) -> list[PlacedOrder]:
    """
    Insert the batch, or, while draining, the oldest of it that the lease covers.

    Units that were returned and sold again in a lost part of the log can have been
    accepted twice; the lease row decides who keeps them (promise P4).
    """
    savepoint = connection.transaction()
    await savepoint.start()
    inserted = await _insert_or_bisect(connection, batch, batch.orders)
    if sum(order.request.quantity for order in inserted) <= room:
        await savepoint.commit()
        return inserted
    await savepoint.rollback()
    if batch.lease["state"] == "open":
        raise _LeaseOverrun
    batch.parked.clear()
    batch.released = 0
    for order in inserted:
        room -= order.request.quantity
        if room < 0:
            room += order.request.quantity
            await _park(connection, batch, order, LetterReason.LOST_IN_RECOVERY, returns=False)
    fitting = [order for order in batch.orders if order.seq not in batch.parked]
    return await _insert_or_bisect(connection, batch, fitting)


async def _insert_or_bisect(
    connection: Connection,
    batch: _Batch,
    orders: Sequence[PlacedOrder],
) -> list[PlacedOrder]:
    """
    Insert orders in one statement; halve the batch until a poison entry stands alone.

    Poison is only what Postgres refuses for the row's own content (SQLSTATE class
    22 or 23); everything else means that the shard does not answer, and leaves.

    Returns:
        The orders really inserted; the others were there already or are parked.
    """
    if not orders:
        return []
    try:
        async with connection.transaction():
            return await _insert_rows(connection, batch, orders)
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        if len(orders) == 1:
            await _park(
                connection,
                batch,
                orders[0],
                LetterReason.UNREADABLE,
                detail={"sqlstate": error.sqlstate, "constraint": error.constraint_name},
            )
            return []
    middle = len(orders) // 2
    first = await _insert_or_bisect(connection, batch, orders[:middle])
    return first + await _insert_or_bisect(connection, batch, orders[middle:])


async def _insert_rows(
    connection: Connection,
    batch: _Batch,
    orders: Sequence[PlacedOrder],
) -> list[PlacedOrder]:
    rows = await connection.fetch(
        INSERT_ORDERS,
        batch.lease["sale"],
        batch.lease["bucket"],
        [order.seq for order in orders],
        [order.request.shopper for order in orders],
        [order.request.quantity for order in orders],
        [order.placed_at for order in orders],
        [order.request.key_hash for order in orders],
        [order.request.fingerprint for order in orders],
        [order.request.reference for order in orders],
        [order.request.group for order in orders],
    )
    if len(rows) == len(orders):
        return list(orders)
    inserted = {row["seq"] for row in rows}
    return [order for order in orders if order.seq in inserted]


async def _settle_clashes(
    connection: Connection,
    batch: _Batch,
    inserted: Sequence[PlacedOrder],
) -> None:
    """Tell orders that were there already from keys that another order owns."""
    done = batch.parked | {order.seq for order in inserted}
    rest = {order.seq: order for order in batch.orders if order.seq not in done}
    if not rest:
        return
    rows = await connection.fetch(
        SELECT_CLASHES,
        batch.lease["sale"],
        batch.lease["bucket"],
        batch.lease["epoch"],
        list(rest),
        [order.request.shopper for order in rest.values()],
        [order.request.key_hash for order in rest.values()],
    )
    for row in rows:
        if row["is_replay"]:
            batch.report.duplicates += 1
        else:
            owner = None if row["owner_seq"] is None else (row["owner_epoch"], row["owner_seq"])
            await _park(connection, batch, rest[row["seq"]], LetterReason.KEY_TAKEN, owner=owner)


async def _park(  # noqa: PLR0913  each part of a letter is said once
    connection: Connection,
    batch: _Batch,
    order: PlacedOrder,
    reason: LetterReason,
    *,
    owner: tuple[int, int] | None = None,
    returns: bool = True,
    detail: dict[str, object] | None = None,
) -> None:
    """Park one order as a dead letter and write the return of its units."""
    lease, request = batch.lease, order.request
    key = OrderKey(lease["sale"], lease["bucket"], lease["epoch"], order.seq)
    await connection.execute(
        INSERT_LETTER,
        reason,
        *key,
        _printable(request.shopper),
        request.quantity,
        request.key_hash,
        repr(request).encode(),
        detail or {},
    )
    batch.parked.add(order.seq)
    if returns:
        batch.released += request.quantity
        await connection.execute(
            INSERT_LETTER_RETURN,
            key.sale,
            key.bucket,
            request.quantity,
            _printable(request.shopper),
            key.epoch,
            key.seq,
            request.key_hash,
            *(owner or (None, None)),
            request.group,
        )


async def _park_unreadable(
    connection: Connection,
    batch: _Batch,
    entry: RawEntry,
) -> None:
    """Keep the raw bytes of an entry nobody can read; the rebuild counts its units."""
    lease = batch.lease
    await connection.execute(
        INSERT_LETTER,
        LetterReason.UNREADABLE,
        lease["sale"],
        lease["bucket"],
        lease["epoch"],
        None,
        None,
        None,
        None,
        b"".join(entry.fields.values()),
        {"entry_id": str(entry.entry_id)},
    )
    batch.report.letters += 1


async def _stop(shard: Shard, position: Position, reason: RecoverReason) -> FlushReport:
    async with shard.transaction() as connection:
        await _ask_to_recover(connection, position, reason)
    return FlushReport(position, recover=reason)


async def _ask_to_recover(
    connection: Connection,
    position: Position,
    reason: RecoverReason,
) -> None:
    """Leave word for the coordinator that this bucket needs a new epoch."""
    await connection.execute(ASK_TO_RECOVER, position.sale, position.bucket, position.epoch, reason)


def _printable(text: str) -> str:
    """Return text that Postgres takes: without NUL."""
    return text.replace("\0", "\ufffd")
