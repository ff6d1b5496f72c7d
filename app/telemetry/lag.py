"""Measure how late the event loop is: the first sign that a process does too much."""

import asyncio
from typing import Final, Protocol

PERIOD_SECONDS: Final = 0.1  # ten samples a second cost nothing and catch a stall of 100 ms


class Observes(Protocol):
    """A histogram, as far as it concerns us."""

    def observe(self, amount: float) -> None:
        """Take one value, in seconds."""
        ...


async def measure_lag(histogram: Observes, period_seconds: float = PERIOD_SECONDS) -> None:
    """
    Observe the loop's lateness until cancelled.

    Args:
        histogram: of seconds, such as `Metrics.loop_lag_seconds`.
        period_seconds: between two samples.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + period_seconds
        await asyncio.sleep(period_seconds)
        histogram.observe(max(0.0, loop.time() - due))
