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
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    result: "asyncio.Future[Result]"
    since: float


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
        """Have one item served with the next batch; cancelling does not take it back."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Item, Result](item, loop.create_future(), time.monotonic())
        self._waiting.append(waiting)
        if self._free:
            self._free -= 1
            call = loop.create_task(self._serve())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return await waiting.result

    def shed(self, waited_seconds_max: float, result: Result) -> None:
        """Answer `result` to every item that has waited longer, before it is sent."""
        latest = time.monotonic() - waited_seconds_max
        while self._waiting and self._waiting[0].since < latest:
            _tell(self._waiting.popleft(), result)

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
        size = min(len(self._waiting), self._items_max)
        batch = [self._waiting.popleft() for _ in range(size)]
        items = [waiting.item for waiting in batch]
        (results,) = await asyncio.gather(self._commit(items), return_exceptions=True)
        if not isinstance(results, BaseException) and len(results) != len(batch):
            results = AssertionError(f"{len(results)} results for {len(batch)} items")
        if isinstance(results, BaseException):
            for waiting in batch:
                _fail(waiting, results)
            return
        for waiting, result in zip(batch, results, strict=True):
            _tell(waiting, result)


def _tell(waiting: _Waiting[Item, Result], result: Result) -> None:
    if not waiting.result.done():  # the caller may have gone
        waiting.result.set_result(result)


def _fail(waiting: _Waiting[Item, Result], error: BaseException) -> None:
    if not waiting.result.done():
        waiting.result.set_exception(error)
