"""Run calls to providers side by side, but not too many."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence


async def run_bounded(calls: Sequence[Callable[[], Awaitable[None]]], calls_max: int) -> None:
    """
    Run every call, at most `calls_max` at once, and wait for all of them.

    One that fails does not stop the others; the first failure is raised at the end.
    """
    turns = asyncio.Semaphore(calls_max)

    async def take_turn(call: Callable[[], Awaitable[None]]) -> None:
        async with turns:
            await call()

    ended = await asyncio.gather(*map(take_turn, calls), return_exceptions=True)
    for outcome in ended:
        if outcome is not None:
            raise outcome
