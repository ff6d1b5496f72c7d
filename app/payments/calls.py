"""Run work side by side: calls to providers, but not too many; passes over every shard."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import starmap

from app.storage.shards import Shard


async def run_bounded(
    calls: Sequence[tuple[Hashable, Callable[[], Awaitable[None]]]], calls_max: int
) -> None:
    """
    Run every call, at most `calls_max` at once to each callee, and wait for all of them.

    A callee that hangs takes no turn of another one. A call that fails does not stop
    the others; the first failure is raised at the end.

    Args:
        calls: each with whom it goes to.
        calls_max: to one callee at once.
    """
    turns: defaultdict[Hashable, asyncio.Semaphore] = defaultdict(
        lambda: asyncio.Semaphore(calls_max)
    )

    async def take_turn(callee: Hashable, call: Callable[[], Awaitable[None]]) -> None:
        async with turns[callee]:
            await call()

    ended = await asyncio.gather(*starmap(take_turn, calls), return_exceptions=True)
    for outcome in ended:
        if outcome is not None:
            raise outcome


async def count_over(shards: Sequence[Shard], work: Callable[[Shard], Awaitable[int]]) -> int:
    """
    Do one pass on every shard and add up what was done.

    A shard that does not answer does not keep the others waiting for their turn;
    its failure is raised when all have had theirs.
    """
    done = 0
    for outcome in await asyncio.gather(*map(work, shards), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        done += outcome
    return done
