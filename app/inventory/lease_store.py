"""
Lease rows in Postgres: every act of the coordinator on a bucket.

Each statement names the epoch (and state) it began from. A row that does not
come back means that somebody else has moved the bucket on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from app.inventory.bucket import REMEMBERED_FINGERPRINT_BYTES
from app.inventory.lease import BucketMode, Lease, ServerIdentity
from app.inventory.seats import SELECT_GROUPS, SELECT_MEMBERS, GroupEntry, entry_from_row
from app.sales.sale import Sale, SaleKind
from app.sales.store import group_values, pop_group_terms
from app.storage.shards import Connection, Shard

_COLUMNS: Final = """sale, bucket, epoch, state, granted, reserved, stream_ms, stream_seq,
    orders_seen, recover_reason, run_id, master_replid, incarnation, script_sha, home_shard,
    sale_id, limit_per_shopper, opens_at, closes_at, epoch_opened_at, kind, group_size,
    group_window_seconds, group_leader_leaves, group_rescue_seconds"""
_READ_ROWS_MAX: Final = 1_000  # of one fetch from a cursor: fits the socket's buffer (§6)

INSERT_LEASE: Final = """
INSERT INTO bucket_leases (sale, bucket, epoch, state, home_shard, sale_id, kind, sku, merchant,
                           price_minor, currency, limit_per_shopper, opens_at, closes_at,
                           pay_within_seconds, group_size, group_window_seconds,
                           group_leader_leaves, group_rescue_seconds)
VALUES ($1, $2, 0, 'draining', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT DO NOTHING"""
SELECT_LIVE: Final = f"""
SELECT {_COLUMNS} FROM bucket_leases WHERE state <> 'closed' ORDER BY sale, bucket"""
SELECT_LEASE: Final = f"SELECT {_COLUMNS} FROM bucket_leases WHERE sale = $1 AND bucket = $2"
SELECT_OPEN_PLACES: Final = """
SELECT l.bucket, l.epoch, EXISTS (
    SELECT FROM bucket_moves m
    WHERE m.sale = l.sale AND m.bucket = l.bucket AND m.kind IN ('top_up', 'withdrawal')
      AND m.state IN ('asked', 'debited')) AS is_changing
FROM bucket_leases l WHERE l.sale = $1 AND l.state = 'open'"""
BEGIN_DRAINING: Final = f"""
UPDATE bucket_leases SET state = 'draining'
WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND state IN ('open', 'draining')
RETURNING {_COLUMNS}"""
BEGIN_EPOCH: Final = f"""
UPDATE bucket_leases
SET epoch = epoch + 1, stream_ms = 0, stream_seq = 0, orders_seen = 0, units_flushed = 0,
    units_released = 0, epoch_opened_at = NULL
WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND state = 'draining'
  AND epoch_opened_at IS NOT DISTINCT FROM $4
RETURNING {_COLUMNS}"""
SELECT_HOLDINGS: Final = """
SELECT shopper, sum(units_held)::bigint AS units FROM orders
WHERE sale = $1 AND bucket = $2 AND units_held > 0 GROUP BY shopper"""
# A hundred thousand of these are read at once: packed as RememberedOrder.pack does it, for that
# takes four times as long in Python (two bytes of epoch, five of seq, six of Unix ms).
SELECT_REPLAYS: Final = f"""
SELECT key_hash, int2send(epoch) || substring(int8send(seq) from 4)
       || substring(int8send(floor(extract(epoch from placed_at) * 1000)::bigint) from 3)
       || substring(fingerprint for {REMEMBERED_FINGERPRINT_BYTES}) AS remembered
FROM orders WHERE sale = $1 AND bucket = $2"""
OPEN_EPOCH: Final = f"""
UPDATE bucket_leases
SET state = 'open', run_id = $4, master_replid = $5, incarnation = $6, script_sha = $7,
    recover_reason = NULL, epoch_opened_at = now()
WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND state = 'draining'
RETURNING {_COLUMNS}"""
CLOSE_BUCKET: Final = """
WITH old AS (
    SELECT sale, bucket, granted - reserved AS units FROM bucket_leases
    WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND state = 'draining'
      AND epoch_opened_at IS NOT DISTINCT FROM $4 FOR UPDATE
), closed AS (
    UPDATE bucket_leases l SET epoch = l.epoch + 1, state = 'closed', granted = l.reserved
    FROM old WHERE l.sale = old.sale AND l.bucket = old.bucket
    RETURNING l.sale, l.bucket, l.epoch, old.units
), debited AS (
    INSERT INTO bucket_moves (sale, bucket, kind, units, epoch, state)
    SELECT sale, bucket, 'withdrawal', units, epoch, 'debited' FROM closed WHERE units > 0
)
SELECT epoch FROM closed"""
ASK_TO_RECOVER: Final = """
UPDATE bucket_leases SET recover_reason = $3
WHERE sale = $1 AND ($2::smallint IS NULL OR bucket = $2) AND state <> 'closed'
RETURNING bucket"""


@dataclass(frozen=True, slots=True)
class LeasePlace:
    """An open bucket, and whether units are on their way into it or out of it."""

    bucket: int
    epoch: int
    is_changing: bool


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What a new epoch begins with, as Postgres says it in one transaction."""

    lease: Lease  # of the new epoch
    holdings: dict[str, int]  # shopper -> units held
    replays: dict[bytes, bytes]  # key hash -> the order it made, as RememberedOrder packs it
    groups: dict[str, GroupEntry] = field(default_factory=dict)  # of a group sale
    members: dict[str, str] = field(default_factory=dict)  # shopper -> live group


async def insert_leases(shard: Shard, sale: Sale, bucket: int, home_shard: int) -> None:
    """Write the lease row of a new bucket, once, with what publish has fixed."""
    async with shard.connection() as connection:
        await connection.execute(
            INSERT_LEASE,
            sale.number,
            bucket,
            home_shard,
            sale.id,
            sale.kind,
            sale.sku,
            sale.merchant,
            sale.price_minor,
            sale.currency,
            sale.limit_per_shopper,
            sale.opens_at,
            sale.closes_at,
            sale.pay_within_seconds,
            *group_values(sale.group),
        )


async def live_leases(shard: Shard) -> list[Lease]:
    """Return every bucket of this shard that is not closed."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_LIVE)
    return [lease_from_row(row) for row in rows]


async def open_places(shard: Shard, sale: int) -> list[LeasePlace]:
    """Return the buckets of a sale that are open on this shard."""
    async with shard.connection() as connection:
        rows = await connection.fetch(SELECT_OPEN_PLACES, sale)
    return [LeasePlace(*row) for row in rows]


async def read_lease(shard: Shard, sale: int, bucket: int) -> Lease | None:
    """Return one bucket's lease row, or None if it was never published."""
    async with shard.connection() as connection:
        row = await connection.fetchrow(SELECT_LEASE, sale, bucket)
    return None if row is None else lease_from_row(row)


async def begin_draining(shard: Shard, lease: Lease) -> Lease | None:
    """Shut a bucket's epoch in Postgres; None if the epoch has moved on or is closed."""
    async with shard.connection() as connection:
        row = await connection.fetchrow(BEGIN_DRAINING, lease.sale, lease.bucket, lease.epoch)
    return None if row is None else lease_from_row(row)


async def begin_epoch(shard: Shard, lease: Lease) -> Rebuild | None:
    """
    Take the next epoch and read what its keys must hold, in one transaction.

    Whatever changes the bucket's units locks its lease row, so nothing can slip
    between the change of epoch and the reading: it came before, or it carries
    the new epoch. Rows come through a cursor in pieces, so that a reader that
    freezes is idle in transaction and loses its lock.

    Returns:
        None if somebody else has moved the bucket on.
    """
    async with shard.transaction() as connection:
        row = await connection.fetchrow(
            BEGIN_EPOCH, lease.sale, lease.bucket, lease.epoch, lease.epoch_opened_at
        )
        if row is None:
            return None
        holdings = _pairs(await _fetch_in_pieces(connection, SELECT_HOLDINGS, lease))
        replays = _pairs(await _fetch_in_pieces(connection, SELECT_REPLAYS, lease))
        fresh = lease_from_row(row)
        groups, members = await _read_groups(connection, fresh)
    return Rebuild(fresh, holdings, replays, groups, members)


async def _read_groups(
    connection: Connection, lease: Lease
) -> tuple[dict[str, GroupEntry], dict[str, str]]:
    """Read what `groups` and `members` must hold; nothing for a sale without groups."""
    if lease.group is None:
        return {}, {}
    groups = await _fetch_in_pieces(connection, SELECT_GROUPS, lease)
    members = await _fetch_in_pieces(connection, SELECT_MEMBERS, lease)
    return (
        {row["id"]: entry_from_row(row) for row in groups},
        {row["shopper"]: row["group_id"] for row in members},
    )


async def _fetch_in_pieces(
    connection: Connection, statement: str, lease: Lease
) -> list[Mapping[str, Any]]:
    cursor = await connection.cursor(statement, lease.sale, lease.bucket)
    rows: list[Mapping[str, Any]] = []
    while piece := await cursor.fetch(_READ_ROWS_MAX):
        rows += piece
    return rows


def _pairs(rows: Any) -> dict[Any, Any]:  # noqa: ANN401  records of two columns
    return dict(rows)


async def open_epoch(
    shard: Shard,
    lease: Lease,
    server: ServerIdentity,
    script_sha: str,
) -> Lease | None:
    """Let the epoch sell on this server; None if somebody else has moved the bucket on."""
    async with shard.connection() as connection:
        row = await connection.fetchrow(
            OPEN_EPOCH,
            lease.sale,
            lease.bucket,
            lease.epoch,
            server.run_id,
            server.master_replid,
            server.incarnation,
            script_sha,
        )
    return None if row is None else lease_from_row(row)


async def close_bucket(shard: Shard, lease: Lease) -> bool:
    """End a drained bucket for good; its unsold units go back to the pool by a move."""
    async with shard.transaction() as connection:
        epoch = await connection.fetchval(
            CLOSE_BUCKET, lease.sale, lease.bucket, lease.epoch, lease.epoch_opened_at
        )
    return epoch is not None


async def ask_to_recover(shard: Shard, sale: int, bucket: int | None, reason: str) -> int:
    """Leave word for the coordinator; return how many buckets it concerns."""
    async with shard.connection() as connection:
        return len(await connection.fetch(ASK_TO_RECOVER, sale, bucket, reason))


def lease_from_row(row: Mapping[str, Any]) -> Lease:
    """Turn a row of `bucket_leases` into a lease."""
    values = dict(row)
    return Lease(
        state=BucketMode(values.pop("state")),
        kind=SaleKind(values.pop("kind")),
        group=pop_group_terms(values),
        **values,
    )


def ends_at(lease: Lease, sale: Sale | None) -> datetime:
    """Say when a bucket's selling ends: with its sale, or at its window's end if unknown."""
    return lease.closes_at if sale is None else sale.ends_at
