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
from typing import Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# An item, who waits for its result, and since when. A bare tuple: one is made
# for every click.
_Waiting: TypeAlias = "tuple[Item, asyncio.Future[Result], float]"


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
        result: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, result, time.monotonic()))
        if self._free:
            self._free -= 1
            call = loop.create_task(self._serve())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return await result

    def shed(self, waited_seconds_max: float, result: Result) -> None:
        """Answer `result` to every item that has waited longer, before it is sent."""
        latest = time.monotonic() - waited_seconds_max
        while self._waiting and self._waiting[0][2] < latest:
            _tell(self._waiting.popleft()[1], result)

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
        items = [item for item, _, _ in batch]
        (answered,) = await asyncio.gather(self._answer(items), return_exceptions=True)
        for at, (_, waiting, _) in enumerate(batch):
            if isinstance(answered, BaseException):
                _fail(waiting, answered)
            else:
                _tell(waiting, answered[at])

    async def _answer(self, items: Sequence[Item]) -> Sequence[Result]:
        results = await self._commit(items)
        assert len(results) == len(items), "one result for each item"
        return results


def _tell(waiting: "asyncio.Future[Result]", result: Result) -> None:
    if not waiting.done():  # the caller may have gone
        waiting.set_result(result)


def _fail(waiting: "asyncio.Future[Result]", error: BaseException) -> None:
    if not waiting.done():
        waiting.set_exception(error)
