"""Run a worker's bounded pass again and again until told to stop."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from app.kernel.errors import Unavailable


class Reporter(Protocol):
    """Where the loop tells of passes that failed (telemetry.log has one)."""

    def pass_failed(self, worker: str, error: BaseException, wait_ms: int) -> None:
        """Note one failed pass and how long the loop now waits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a loop waits between its passes."""

    idle_ms: int = 200  # after a pass that found nothing to do
    retry_ms_min: int = 50  # first pause after a failed pass
    retry_ms_max: int = 2_000  # longest pause between failed passes

    def __post_init__(self) -> None:
        assert 0 < self.retry_ms_min <= self.retry_ms_max
        assert self.idle_ms >= 0


async def run_loop(
    name: str,
    once: Callable[[], Awaitable[int]],
    stopping: asyncio.Event,
    reporter: Reporter,
    pace: Pace,
) -> None:
    """
    Call `once` until `stopping` is set; wait while there is nothing to do.

    `once` returns how much it did; after a pass that did nothing the loop waits
    `pace.idle_ms`, after one that did something it goes on at once. A failed
    pass is reported and repeated with growing, jittered pauses. This is one of
    the two places of the service that catch everything: a worker must outlive
    any single failure, and says so aloud. A failed assertion is a bug and is
    not survived: it leaves the loop and ends the process.
    """
    failures = 0
    while not stopping.is_set():
        try:
            done = await once()
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001  the boundary of every worker
            wait_ms = _retry_wait_ms(failures, pace)
            failures += 1
            if failures == 1 or not isinstance(error, Unavailable) or failures % 10 == 0:
                reporter.pass_failed(name, error, wait_ms)
            await pause(stopping, wait_ms)
            continue
        failures = 0
        if done == 0:
            await pause(stopping, pace.idle_ms)


async def pause(stopping: asyncio.Event, wait_ms: float) -> None:
    """Wait, but no longer than until `stopping` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), wait_ms / 1000)


def _retry_wait_ms(failures: int, pace: Pace) -> int:
    """Double the pause at each failure up to the maximum, with a quarter of jitter."""
    ceiling = min(pace.retry_ms_max, pace.retry_ms_min * 2 ** min(failures, 20))
    return int(ceiling * random.uniform(0.75, 1.0))  # noqa: S311  jitter, not a secret
