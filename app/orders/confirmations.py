"""
Confirmations: tell who waits for a row (`Prefer: wait`).

After each commit the flusher publishes how far a bucket is flushed. The message
only wakes: what is answered is always a row that was read, and all who are woken by
one message are read together. A message that was said before anybody listened is made
up for by looking once when listening begins (docs/HOT_PATH.md §5).

Who waits costs no task: one click in many may ask for its row in the middle of a rush.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from redis.asyncio import Redis

from app.kernel.errors import DoorbusterError, ShardUnavailable
from app.kernel.group_commit import GroupCommit, Waiter
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

_Reader: TypeAlias = GroupCommit[OrderKey, Order | None]


@dataclass(slots=True)
class _Bucket:
    """Who waits for rows of one bucket, and how far it is known to be flushed."""

    flushed: _Reached = (0, EntryId(0, 0))
    watches: "dict[_Watch, None]" = field(default_factory=dict)  # in the order of their coming

    def wake(self, *, everybody: bool) -> None:
        for watch in tuple(self.watches):
            if everybody or watch.reached <= self.flushed or watch.reached == _ANY_NEWS:
                del self.watches[watch]
                watch.look()


class _Watch:
    """One who waits for one row; hears of each look at it, as a `Waiter` of the reader."""

    __slots__ = ("_bucket", "_is_last", "_key", "_reader", "_timer", "_waiter", "reached")

    def __init__(
        self,
        bucket: _Bucket,
        reader: _Reader,
        key: OrderKey,
        reached: _Reached,
        waiter: Waiter[Order | None],
    ) -> None:
        self.reached = reached
        self._bucket = bucket
        self._reader = reader
        self._key = key
        self._waiter = waiter
        self._is_last = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> None:
        """Wait for the flush; a replay looks first, for its row may be old."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look_last)
        if self.reached == _ANY_NEWS:
            self.look()
        else:
            self._wait()

    def look(self) -> None:
        """Have the row read with those of the others."""
        if not self.done():
            self._reader.put_nowait(self._key, self)

    def done(self) -> bool:
        """Say whether the answer was given, or nobody is there any more to hear it."""
        if self._timer is not None and self._waiter.done():
            self._stop()
        return self._timer is None

    def set_result(self, order: Order | None, /) -> None:
        """Hear what one look has found."""
        if order is not None or self._is_last:
            self._end(order)
        elif self.reached <= self._bucket.flushed:
            self._look_last()  # passed by the flush: a letter, or a row of this very moment
        else:
            self._wait()

    def set_exception(self, error: BaseException, /) -> None:
        """Hear that one look has failed; a shard that is away costs the row, not the ticket."""
        if not isinstance(error, ShardUnavailable):
            self._stop()
            self._waiter.set_exception(error)
        elif self._is_last:
            self._end(None)
        else:
            self._look_last()

    def _wait(self) -> None:
        self._bucket.watches[self] = None
        if self.reached <= self._bucket.flushed:  # heard before it was waited for
            del self._bucket.watches[self]
            self.look()

    def _look_last(self) -> None:
        """Look once more, for a message that was lost; a frozen shard must not stretch the wait."""
        self._stop()
        if self._waiter.done():
            return
        self._is_last = True
        self._timer = asyncio.get_running_loop().call_later(LAST_LOOK_SECONDS, self._end, None)
        self.look()

    def _end(self, order: Order | None) -> None:
        self._stop()
        if not self._waiter.done():
            self._waiter.set_result(order)

    def _stop(self) -> None:
        """Be over: no timer, no place among those who wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._bucket.watches.pop(self, None)


class Confirmations:
    """Waits for rows; one per api process."""

    def __init__(self, redis: Redis, shards: Shards, deployment: str) -> None:
        self._redis = redis
        self._shards = shards
        self._deployment = deployment
        self._buckets: dict[tuple[int, int], _Bucket] = {}
        self._heard: dict[bytes, _Bucket] = {}
        self._readers: dict[int, _Reader] = {}
        self._listening: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def wait_for(self, key: OrderKey, entry_id: bytes, seconds: float) -> Order | None:
        """Return the row of a placed order as soon as it is committed; as `tell`."""
        told: asyncio.Future[Order | None] = asyncio.get_running_loop().create_future()
        self.tell(told, key, entry_id, seconds)
        return await told

    def tell(
        self, waiter: Waiter[Order | None], key: OrderKey, entry_id: bytes, seconds: float
    ) -> None:
        """
        Tell `waiter` the row of a placed order as soon as it is committed.

        It hears None if there is no row after `seconds`, or the shard does not answer.

        Args:
            waiter: is told once, unless it is done before.
            key: of the order.
            entry_id: of its stream entry; b"" for a replay, whose row may be old.
            seconds: how long to wait at most.
        """
        reached = (key.epoch, EntryId.parse(entry_id)) if entry_id else _ANY_NEWS
        reader = self._reader(self._shards.of(key.sale, key.bucket))
        watch = _Watch(self._bucket(key), reader, key, reached, waiter)
        watch.begin(seconds)

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    def _bucket(self, key: OrderKey) -> _Bucket:
        bucket = self._buckets.get((key.sale, key.bucket))
        if bucket is None:
            bucket = self._buckets[key.sale, key.bucket] = _Bucket()
            channel = BucketKeys(self._deployment, key.sale, key.bucket, 0).channel
            self._heard[channel] = bucket
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
                    self._redis, tuple(self._heard), self._changed
                ):
                    self._hear(channel, message)
            except DoorbusterError:
                await asyncio.sleep(_REJOIN_SECONDS)

    def _hear(self, channel: bytes, message: bytes) -> None:
        bucket = self._heard[channel]
        if message:
            epoch, _, offset = message.partition(b" ")
            bucket.flushed = max(bucket.flushed, (int(epoch), EntryId.parse(offset)))
        bucket.wake(everybody=not message)

    def _reader(self, shard: Shard) -> _Reader:
        reader = self._readers.get(shard.index)
        if reader is None:

            async def read(keys: Sequence[OrderKey]) -> list[Order | None]:
                found = await read_orders(shard, keys)
                return [found.get(key) for key in keys]

            reader = GroupCommit(read, items_max=_READ_ROWS_MAX)
            self._readers[shard.index] = reader
        return reader
