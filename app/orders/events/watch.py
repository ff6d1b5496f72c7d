"""
The watch: who waits for news of which orders, and one look per shard for all of them.

However many streams are open, a shard is asked one question per look (of up to a
thousand orders), and none while nobody waits. NOTIFY would spare the looks, but every
commit that notifies takes one lock of the whole database, and the flush commits
hundreds of times a second.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from app.kernel.errors import Unavailable
from app.kernel.ids import OrderKey
from app.orders.events.settings import EventSettings
from app.orders.events.store import QUEUED, Mark, read_marks
from app.storage.shards import Shard, Shards

_KEYS_MAX: Final = 1_000  # of one statement


class Watcher:
    """
    One stream's ear: told of each mark that is newer than the last one it heard.

    Args:
        key: of the order.
        has_left: says whether the client's connection has ended.
    """

    def __init__(self, key: OrderKey, has_left: Callable[[], bool]) -> None:
        self.key = key
        self.has_left = has_left
        self.mark = QUEUED
        self.is_over = False
        self._news = asyncio.Event()

    async def newer_than(self, number: int) -> Mark | None:
        """Wait for a mark beyond `number`; None when nobody listens or this process stops."""
        while not self.is_over and self.mark.number <= number:
            self._news.clear()
            await self._news.wait()
        return None if self.is_over else self.mark

    def hear(self, mark: Mark) -> None:
        if mark.number > self.mark.number:
            self.mark = mark
            self._news.set()

    def end(self) -> None:
        self.is_over = True
        self._news.set()


class Watch:
    """Every watcher of one api process."""

    def __init__(self, shards: Shards, settings: EventSettings) -> None:
        self._shards = shards
        self._settings = settings
        self._watchers: set[Watcher] = set()
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    def join(self, key: OrderKey, has_left: Callable[[], bool]) -> Watcher | None:
        """Begin to watch an order; None if too many do, or if this process stops."""
        if self._is_closed or len(self._watchers) >= self._settings.streams_max:
            return None
        watcher = Watcher(key, has_left)
        self._watchers.add(watcher)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_while_watched())
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Watch no longer."""
        self._watchers.discard(watcher)

    async def look_at(self, watcher: Watcher) -> Mark:
        """
        Read one order's mark now, when its stream begins.

        Raises:
            ShardUnavailable: the shard did not answer.
        """
        shard = self._shards.of(watcher.key.sale, watcher.key.bucket)
        (mark,) = await read_marks(shard, [watcher.key])
        watcher.hear(mark)
        return watcher.mark

    async def close(self) -> None:
        """End every stream, so that the listener can drain."""
        self._is_closed = True
        for watcher in self._watchers:
            watcher.end()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look_while_watched(self) -> None:
        while self._watchers:
            await asyncio.sleep(self._settings.look_ms / 1000)
            self._end_deserted()
            await asyncio.gather(*(self._look(shard) for shard in self._shards.all))

    def _end_deserted(self) -> None:
        """End streams whose client left: nothing else would tell before the next ping."""
        for watcher in self._watchers:
            if watcher.has_left():
                watcher.end()

    async def _look(self, shard: Shard) -> None:
        """Look at every watched order of one shard; a shard that is away is looked at again."""
        mine: dict[OrderKey, list[Watcher]] = {}
        for watcher in self._watchers:
            if self._shards.of(watcher.key.sale, watcher.key.bucket) is shard:
                mine.setdefault(watcher.key, []).append(watcher)
        keys = list(mine)
        with contextlib.suppress(Unavailable):
            for start in range(0, len(keys), _KEYS_MAX):
                await _tell(shard, keys[start : start + _KEYS_MAX], mine)


async def _tell(
    shard: Shard, keys: Sequence[OrderKey], watchers: dict[OrderKey, list[Watcher]]
) -> None:
    for key, mark in zip(keys, await read_marks(shard, keys), strict=True):
        for watcher in watchers[key]:
            watcher.hear(mark)
