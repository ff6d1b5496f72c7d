"""What a flush starts from, and what it tells."""

import enum
from dataclasses import dataclass, field

from app.orders.stream import EntryId


class RecoverReason(enum.StrEnum):
    """Why the flusher stops a bucket and asks for a new epoch."""

    GAP = "gap"
    UNREADABLE_ENTRY = "unreadable_entry"
    LEASE_OVERRUN = "lease_overrun"


@dataclass(frozen=True, slots=True)
class Position:
    """From where a batch was read: a bucket, its epoch, and the last entry before it."""

    sale: int
    bucket: int
    epoch: int
    offset: EntryId
    orders_seen: int = field(default=0, compare=False)  # committed with the offset


@dataclass(slots=True)
class FlushReport:
    """What one batch did; all zero when it was fenced."""

    position: Position
    orders_seen: int = 0
    rows: int = 0
    units: int = 0
    duplicates: int = 0
    letters: int = 0
    fenced: bool = False
    recover: RecoverReason | None = None
