"""
Confirmations: wake who waits for a row (`Prefer: wait`).

After each commit the flusher publishes how far a bucket is flushed. The message
only wakes: what is answered is always a row that was read. A message that was
said before anybody listened is made up for by looking once when listening begins
(docs/HOT_PATH.md §5).
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from redis.asyncio import Redis

from app.kernel.errors import DoorbusterError, ShardUnavailable, UnreadableEntry
from app.kernel.group_commit import GroupCommit
from app.kernel.ids import EPOCH_MAX, OrderKey
from app.orders.order import Order
from app.orders.store import read_orders
from app.orders.stream import EntryId, listen
from app.storage.keys import BucketKeys
from app.storage.shards import Shard, Shards

_REJOIN_SECONDS = 0.2  # between attempts to listen again
LAST_LOOK_SECONDS = 0.5  # beyond what the shopper was willing to wait
_READ_ROWS_MAX = 500  # of one statement

_Reached: TypeAlias = tuple[int, EntryId]
"""Epoch and entry up to which a bucket is flushed."""

_ANY_NEWS: Final[_Reached] = (EPOCH_MAX + 1, EntryId(0, 0))  # of a replay: its entry is not known


@dataclass(slots=True)
class _Bucket:
    """Who waits for rows of one bucket, and how far it is known to be flushed."""

    flushed: _Reached = (0, EntryId(0, 0))
    waiting: "dict[asyncio.Future[None], _Reached]" = field(default_factory=dict)

    async def news(self, reached: _Reached) -> None:
        """Wait until it is flushed so far, or until somebody should look again."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting[woken] = reached
        try:
            await woken
        finally:
            self.waiting.pop(woken, None)

    def wake(self, *, everybody: bool) -> None:
        for woken, reached in self.waiting.items():
            is_meant = everybody or reached <= self.flushed or reached == _ANY_NEWS
            if is_meant and not woken.done():
                woken.set_result(None)


class Confirmations:
    """Waits for rows; one per api process."""

    def __init__(self, redis: Redis, shards: Shards, deployment: str) -> None:
        self._redis = redis
        self._shards = shards
        self._deployment = deployment
        self._buckets: dict[bytes, _Bucket] = {}
        self._readers: dict[int, GroupCommit[OrderKey, Order | None]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def wait_for(self, key: OrderKey, entry_id: bytes, seconds: float) -> Order | None:
        """
        Return the row of a placed order as soon as it is committed.

        Args:
            key: of the order.
            entry_id: of its stream entry; b"" for a replay, whose row may be old.
            seconds: how long to wait at most.

        Returns:
            None if there is no row yet, or its shard does not answer.
        """
        reader = self._reader(self._shards.of(key.sale, key.bucket))
        with contextlib.suppress(TimeoutError, ShardUnavailable, UnreadableEntry):
            async with asyncio.timeout(seconds):
                if not entry_id and (order := await reader.put(key)) is not None:
                    return order
                reached = (key.epoch, EntryId.parse(entry_id)) if entry_id else _ANY_NEWS
                bucket = self._bucket(BucketKeys(self._deployment, key.sale, key.bucket, 0).channel)
                while bucket.flushed < reached:
                    await bucket.news(reached)
                    if (order := await reader.put(key)) is not None:
                        return order
        # A last look, for a message that was lost; a frozen shard must not stretch the wait.
        with contextlib.suppress(TimeoutError, ShardUnavailable):
            async with asyncio.timeout(LAST_LOOK_SECONDS):
                return await reader.put(key)
        return None

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    def _bucket(self, channel: bytes) -> _Bucket:
        bucket = self._buckets.get(channel)
        if bucket is None:
            bucket = self._buckets[channel] = _Bucket()
            self._changed.set()
            if self._listening is None:
                self._listening = asyncio.get_running_loop().create_task(self._listen())
        return bucket

    async def _listen(self) -> None:
        """Hear the channels of every bucket that was ever waited for."""
        while True:
            self._changed.clear()
            try:
                async for channel, message in listen(
                    self._redis, tuple(self._buckets), self._changed
                ):
                    self._hear(channel, message)
            except DoorbusterError:
                await asyncio.sleep(_REJOIN_SECONDS)

    def _hear(self, channel: bytes, message: bytes) -> None:
        bucket = self._buckets[channel]
        if message:
            epoch, _, offset = message.partition(b" ")
            bucket.flushed = max(bucket.flushed, (int(epoch), EntryId.parse(offset)))
        bucket.wake(everybody=not message)

    def _reader(self, shard: Shard) -> GroupCommit[OrderKey, Order | None]:
        reader = self._readers.get(shard.index)
        if reader is None:

            async def read(keys: Sequence[OrderKey]) -> list[Order | None]:
                found = await read_orders(shard, keys)
                return [found.get(key) for key in keys]

            reader = GroupCommit(read, items_max=_READ_ROWS_MAX)
            self._readers[shard.index] = reader
        return reader
