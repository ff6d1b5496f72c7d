"""
Group commit: while one batch is in flight, the next one gathers.

No timer: an idle service serves the first item at once, a busy one fills its
batches by itself. The same thirty lines carry clicks to Redis and look-ups to
Postgres.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Told_contra = TypeVar("Told_contra", contravariant=True)


class Waiter(Protocol[Told_contra]):
    """Who waits for a result; an `asyncio.Future` is one."""

    def done(self) -> bool:
        """Say whether it waits no longer: it was told, or has gone."""
        ...

    def set_result(self, result: Told_contra, /) -> None:
        """Hear the result."""
        ...

    def set_exception(self, error: BaseException, /) -> None:
        """Hear that there is none."""
        ...


# An item, who waits for its result, and since when. A bare tuple: one is made
# for every click.
_Waiting: TypeAlias = "tuple[Item, Waiter[Result], float]"


class GroupCommit(Generic[Item, Result]):
    """
    Gathers items and hands them to `commit` in batches, oldest first.

    Args:
        commit: gets 1..items_max items and gives one result for each, in order;
            what it raises is raised to everybody of the batch.
        items_max: of one batch.
        calls_max: of `commit` in flight at once.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        items_max: int,
        calls_max: int = 1,
    ) -> None:
        self._commit = commit
        self._items_max = items_max
        self._free = calls_max
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    async def put(self, item: Item) -> Result:
        """Have one item served with the next batch; cancelling takes back what was not sent."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.put_nowait(item, result)
        return await result

    def put_nowait(self, item: Item, waiter: Waiter[Result]) -> None:
        """Have one item served with the next batch, and `waiter` told."""
        self._waiting.append((item, waiter, time.monotonic()))
        if self._free:
            self._free -= 1
            call = asyncio.get_running_loop().create_task(self._serve())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def shed(self, waited_seconds_max: float, result: Result) -> None:
        """Answer `result` to every item that has waited longer, before it is sent."""
        latest = time.monotonic() - waited_seconds_max
        while self._waiting and self._waiting[0][2] < latest:
            waiter = self._waiting.popleft()[1]
            if not waiter.done():
                waiter.set_result(result)

    async def drain(self) -> None:
        """Wait until everybody has an answer."""
        while self._calls:
            await asyncio.gather(*self._calls)

    async def _serve(self) -> None:
        try:
            while self._waiting:
                await self._serve_batch()
        finally:
            self._free += 1

    async def _serve_batch(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        try:
            answered = await self._answer([item for item, _, _ in batch])
        except BaseException as error:
            for _, waiter, _ in batch:
                _fail(waiter, error)
            if isinstance(error, Exception):
                return  # everybody of the batch was told
            raise
        for (_, waiter, _), result in zip(batch, answered, strict=True):
            if not waiter.done():  # the caller may have gone
                waiter.set_result(result)

    def _next_batch(self) -> "list[_Waiting[Item, Result]]":
        """Take the oldest items; nobody serves one whose waiter has gone before it was sent."""
        batch: list[_Waiting[Item, Result]] = []
        waiting = self._waiting
        while waiting and len(batch) < self._items_max:
            one = waiting.popleft()
            if not one[1].done():
                batch.append(one)
        return batch

    async def _answer(self, items: Sequence[Item]) -> Sequence[Result]:
        results = await self._commit(items)
        assert len(results) == len(items), "one result for each item"
        return results


def _fail(waiter: Waiter[Result], error: BaseException) -> None:
    if not waiter.done():
        waiter.set_exception(error)
