"""Wait for a condition with a deadline: the tests' only way to wait."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

# A tenth of the time waited so far: what takes long is asked seldom, a question may be dear.
LOOK_AGAIN_PART: Final = 0.1
LOOK_AGAIN_SECONDS_MIN: Final = 0.01
LOOK_AGAIN_SECONDS_MAX: Final = 0.1


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
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(within_seconds):
            while not (answer := await _ask(condition)):  # noqa: ASYNC110  any condition
                await asyncio.sleep(_pause_seconds(loop.time() - began))
    except TimeoutError:
        said = f"not true within {within_seconds} s; the last answer was {answer!r}"
        raise AssertionError(said) from None
    return answer


def _pause_seconds(waited_seconds: float) -> float:
    part = LOOK_AGAIN_PART * waited_seconds
    return min(max(part, LOOK_AGAIN_SECONDS_MIN), LOOK_AGAIN_SECONDS_MAX)


async def _ask(condition: Callable[[], Awaitable[T] | T]) -> T:
    answer = condition()
    return await answer if inspect.isawaitable(answer) else answer
