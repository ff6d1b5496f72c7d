"""The lease of a bucket: what Postgres says Redis may sell; pure."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.inventory.bucket import Gate
from app.sales.sale import GroupTerms, Sale, SaleKind, SaleState

LEASE_MS: Final = 4_000  # a renewal lets a bucket sell this long (docs/HOT_PATH.md §7, F4)
LAPSE_MS: Final = 6_000  # no renewal sent for this long: no server sells under the old lease
KEYS_LIVE_AFTER_END: Final = timedelta(hours=24)


class BucketMode(StrEnum):
    """The states of a lease row."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One row of `bucket_leases`."""

    sale: int
    bucket: int
    epoch: int
    state: BucketMode
    granted: int
    reserved: int
    stream_ms: int
    stream_seq: int
    orders_seen: int
    recover_reason: str | None
    run_id: str | None
    master_replid: str | None
    incarnation: str | None
    script_sha: str | None
    home_shard: int
    sale_id: str
    limit_per_shopper: int
    opens_at: datetime
    closes_at: datetime
    epoch_opened_at: datetime | None  # None: nothing was ever sold in this epoch
    kind: SaleKind = SaleKind.SECKILL
    group: GroupTerms | None = None  # of a group sale

    @property
    def name(self) -> tuple[int, int]:
        """Which bucket it is."""
        return (self.sale, self.bucket)

    @property
    def was_opened(self) -> bool:
        """Whether this epoch, or one before, has ever sold."""
        return self.run_id is not None

    @property
    def keys_expire_at(self) -> datetime:
        """When every key of the bucket goes by itself."""
        return self.closes_at + KEYS_LIVE_AFTER_END


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Who a Redis server is: both change when its state may have been lost."""

    run_id: str
    master_replid: str

    @property
    def incarnation(self) -> str:
        """Sixteen hex digits, derived and not counted (docs/HOT_PATH.md §7, F1)."""
        told = f"{self.run_id}{self.master_replid}".encode()
        return hashlib.sha256(told).hexdigest()[:16]


def gate_of(sale: Sale) -> Gate:
    """Say which gate follows from the sale row: the level, not the change."""
    if sale.state == SaleState.CLOSED:
        return Gate.CLOSED
    return Gate.PAUSED if sale.state == SaleState.PAUSED else Gate.OPEN


def is_of(lease: Lease, server: ServerIdentity) -> bool:
    """Say whether the epoch was opened on exactly this server."""
    return (lease.run_id, lease.master_replid) == (server.run_id, server.master_replid)
