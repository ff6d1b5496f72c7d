"""Wait for a condition with a deadline: the tests' only way to wait."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

LOOK_AGAIN_SECONDS: Final = 0.01


async def eventually(
    condition: Callable[[], Awaitable[T] | T],
    *,
    within_seconds: float = 10.0,
) -> T:
    """
    Ask `condition` again and again until its answer is true, and return that answer.

    Raises:
        AssertionError: it was never true; the message has the last answer.
    """
    answer: T | None = None
    try:
        async with asyncio.timeout(within_seconds):
            while not (answer := await _ask(condition)):  # noqa: ASYNC110  any condition
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
    except TimeoutError:
        said = f"not true within {within_seconds} s; the last answer was {answer!r}"
        raise AssertionError(said) from None
    return answer


async def _ask(condition: Callable[[], Awaitable[T] | T]) -> T:
    answer = condition()
    return await answer if inspect.isawaitable(answer) else answer
