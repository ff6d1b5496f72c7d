"""
The flusher: moves placed orders from the stream to the shard that owns them.

One owner per bucket, by an advisory lock. A pass reads what follows the
committed offsets, writes each bucket's entries in one transaction, then tells
who waits and trims the stream. A crash anywhere is a harmless repeat.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from redis.asyncio import Redis

from app.inventory.picture import Offset, take_picture
from app.kernel.errors import BrokenState, DoorbusterError, UnreadableEntry
from app.kernel.failpoints import failpoint
from app.orders.flush_report import FlushReport, Position
from app.orders.flush_store import flush_batch, flushable_positions, stop_at_gap
from app.orders.stream import (
    STREAM_START,
    RawEntry,
    StreamEntry,
    decode_entry,
    read_entries,
    trim_stream,
)
from app.storage.duties import Duties
from app.storage.keys import BucketKeys
from app.storage.redis import redis_errors
from app.storage.shards import LockPurpose, Shard, bucket_subject

ENTRIES_AT_FIRST: Final = 64  # until a first read has shown how full they are

_Bucket = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlusherSettings:
    """How orders move from the stream to the shards."""

    entries_max: int = 256  # stream entries of one bucket in one transaction
    orders_aim: int = 2_000  # about so many orders are read for one transaction
    gather_ms: int = 30  # between two reads while orders come; a first order does not wait
    trim_ms: int = 100  # between two trims of a bucket while orders come
    block_ms: int = 100  # how long to wait for new entries before looking at the leases again
    refresh_ms: int = 250  # how often leases are read for new buckets, epochs and owners
    gap_look_ms: int = 1_000  # how often an idle flusher looks for entries that were trimmed away

    def __post_init__(self) -> None:
        assert 1 <= self.entries_max <= 1_000
        assert 1 <= self.orders_aim <= 10_000
        assert 0 <= self.gather_ms <= 1_000
        assert 0 <= self.trim_ms <= 1_000
        assert 0 < self.block_ms <= 1_000
        assert self.gap_look_ms > 0


class FlushObserver(Protocol):
    """Who hears of flushes: telemetry."""

    def flushed(self, shard: int, report: FlushReport, seconds: float) -> None:
        """Note one batch."""
        ...

    def trim_failed(self, shard: int, error: DoorbusterError) -> None:
        """Note that the stream was not trimmed; it is tried again at the next look."""
        ...


class Flusher:
    """Flushes the buckets of one shard that this process owns."""

    def __init__(  # noqa: PLR0913, PLR0917  collaborators, each once
        self,
        shard: Shard,
        duties: Duties,
        redis: Redis,
        deployment: str,
        settings: FlusherSettings,
        observer: FlushObserver,
    ) -> None:
        self._shard = shard
        self._duties = duties
        self._redis = redis
        self._deployment = deployment
        self._settings = settings
        self._observer = observer
        self._positions: dict[_Bucket, Position] = {}
        self._trimmed: dict[_Bucket, Position] = {}
        self._trimmed_at: dict[_Bucket, float] = {}
        self._entries_wanted = min(ENTRIES_AT_FIRST, settings.entries_max)
        self._gather_until = 0.0
        self._refreshed_at = 0.0
        self._looked_for_gaps_at = 0.0

    async def flush_once(self) -> int:
        """
        Flush what is there now; wait a moment for it if there is nothing.

        Returns:
            Orders that left the stream: rows, duplicates and letters.

        Raises:
            RedisUnavailable, ShardUnavailable: nothing is lost; call again.
        """
        await self._refresh_when_due()
        if not self._positions:
            return 0
        keys = {bucket: self._keys(position) for bucket, position in self._positions.items()}
        found = await self._read(keys)
        if not found:
            await self._trim_leftovers()
            await self._look_for_gaps_when_due()
            return 0
        flushes = [
            self._flush_bucket(bucket, keys[bucket], found[keys[bucket].orders])
            for bucket in keys
            if keys[bucket].orders in found
        ]
        results = await asyncio.gather(*flushes, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                self._refreshed_at = 0.0
                raise result
        return sum(result for result in results if isinstance(result, int))

    async def _read(self, keys: Mapping[_Bucket, BucketKeys]) -> dict[bytes, list[RawEntry]]:
        """
        Read what follows the positions, waiting a moment for it.

        While orders come, reads are `gather_ms` apart: a transaction costs as much for
        one order as for fifty. Where more stands than one read takes, and for the first
        order after a pause, nothing waits (docs/decisions/0006-flush-gathers.md).
        """
        wait_seconds = self._gather_until - time.monotonic()
        if wait_seconds > 0:
            await asyncio.sleep(wait_seconds)
        began = time.monotonic()
        wanted = self._entries_wanted
        found = await read_entries(
            self._redis,
            {keys[bucket].orders: at.offset for bucket, at in self._positions.items()},
            count=wanted,
            block_ms=self._settings.block_ms,
        )
        is_behind = any(len(entries) == wanted for entries in found.values())
        gathers = found and not is_behind
        self._gather_until = began + self._settings.gather_ms / 1000 if gathers else 0.0
        return found

    async def _flush_bucket(
        self,
        bucket: _Bucket,
        keys: BucketKeys,
        raw_entries: Sequence[RawEntry],
    ) -> int:
        failpoint("flusher.after_read")
        began = time.perf_counter()
        position = self._positions[bucket]
        entries = read_batch(raw_entries)
        self._want(entries)
        report = await flush_batch(self._shard, position, entries)
        failpoint("flusher.after_commit")
        self._observer.flushed(self._shard.index, report, time.perf_counter() - began)
        if report.fenced:
            self._positions.pop(bucket, None)
            self._refreshed_at = 0.0
            return 0
        self._positions[bucket] = report.position
        if report.position != position:
            await self._tell(keys, report.position)
            await self._trim_when_due(bucket, report.position)
        elif report.recover is not None:
            # Stopped: nothing more to read here before the coordinator has acted.
            self._positions.pop(bucket, None)
        return report.rows + report.duplicates + report.letters

    async def _tell(self, keys: BucketKeys, position: Position) -> None:
        """Wake who waits for a row; nobody hearing of it never fails a flush."""
        with contextlib.suppress(DoorbusterError), redis_errors():
            await self._redis.publish(keys.channel, f"{position.epoch} {position.offset}")
        failpoint("flusher.after_publish")

    def _want(self, entries: Sequence[StreamEntry | RawEntry]) -> None:
        """Work out how many entries hold `orders_aim` orders; the api decides how full one is."""
        orders = sum(len(entry.orders) for entry in entries if isinstance(entry, StreamEntry))
        fitting = self._settings.orders_aim * len(entries) // max(orders, 1)
        self._entries_wanted = min(max(fitting, 1), self._settings.entries_max)

    async def _trim_when_due(self, bucket: _Bucket, position: Position) -> None:
        """Trim now and then: both numbers of a trim are absolute, so the next makes up for this."""
        trimmed_at = self._trimmed_at.get(bucket, 0.0)
        if time.monotonic() - trimmed_at >= self._settings.trim_ms / 1000:
            await self._trim(bucket, position)

    async def _trim(self, bucket: _Bucket, position: Position) -> None:
        """Trim a stream; what fails is made up for at the next look, and never fails a flush."""
        try:
            await trim_stream(
                self._redis, self._keys(position), position.offset, position.orders_seen
            )
        except DoorbusterError as error:
            self._observer.trim_failed(self._shard.index, error)
            return
        failpoint("flusher.after_trim")
        self._trimmed[bucket] = position
        self._trimmed_at[bucket] = time.monotonic()

    async def _look_for_gaps_when_due(self) -> None:
        """
        Stop a bucket whose stream has lost entries that nobody has flushed.

        While orders come, the next entry's running number tells. When none comes any
        more, as after the last unit, only the count of orders placed does.
        """
        now = time.monotonic()
        if now - self._looked_for_gaps_at < self._settings.gap_look_ms / 1000:
            return
        self._looked_for_gaps_at = now
        for position in self._positions.values():
            with contextlib.suppress(BrokenState):  # somebody else's alarm, not a gap
                if await self._has_gap(position):
                    await stop_at_gap(self._shard, position)

    async def _has_gap(self, position: Position) -> bool:
        """Whether more was placed than is flushed, and nothing of it stands in the stream."""
        flushed = Offset(*position.offset)
        picture = await take_picture(self._redis, self._keys(position), flushed)
        placed = 0 if picture.state is None else picture.state.orders_placed
        return placed > position.orders_seen and picture.waiting is None

    async def _trim_leftovers(self) -> None:
        """
        Trim where the last owner died before it could, or where trimming failed.

        Without it a bucket whose backlog is full would stay so for ever: nothing
        more is placed there, so no flush would come to trim it.
        """
        for bucket, position in self._positions.items():
            if position.offset != STREAM_START and self._trimmed.get(bucket) != position:
                await self._trim(bucket, position)

    async def _refresh_when_due(self) -> None:
        now = time.monotonic()
        if now - self._refreshed_at < self._settings.refresh_ms / 1000:
            return
        positions = await flushable_positions(self._shard)
        mine: dict[_Bucket, Position] = {}
        for position in positions:
            subject = bucket_subject(position.sale, position.bucket)
            if await self._duties.has(LockPurpose.FLUSH, subject):
                mine[position.sale, position.bucket] = position
        await self._leave(self._positions.keys() - mine.keys())
        self._positions = mine
        self._trimmed_at = {bucket: at for bucket, at in self._trimmed_at.items() if bucket in mine}
        self._trimmed = {
            bucket: position for bucket, position in self._trimmed.items() if bucket in mine
        }
        self._refreshed_at = now
        await self._trim_leftovers()

    async def _leave(self, buckets: Iterable[_Bucket]) -> None:
        for sale, bucket in buckets:
            await self._duties.leave(LockPurpose.FLUSH, bucket_subject(sale, bucket))

    def _keys(self, position: Position) -> BucketKeys:
        return BucketKeys(self._deployment, position.sale, position.bucket, position.epoch)


def read_batch(raw_entries: Sequence[RawEntry]) -> list[StreamEntry | RawEntry]:
    """Decode entries; one that nobody can read stays as it is, for its dead letter."""
    batch: list[StreamEntry | RawEntry] = []
    for raw in raw_entries:
        try:
            batch.append(decode_entry(raw.entry_id, raw.fields))
        except UnreadableEntry:
            batch.append(raw)
    return batch
