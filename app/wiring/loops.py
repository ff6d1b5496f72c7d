"""How a role runs its bounded passes: each in a loop, all in one task group."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from app.kernel.loop import Pace, run_loop
from app.telemetry.reporter import LogReporter

Work: TypeAlias = tuple[str, Callable[[], Awaitable[int]], Pace]
"""A worker's name, its bounded pass, and how long it pauses."""


def start_loops(tasks: asyncio.TaskGroup, work: Sequence[Work], stopping: asyncio.Event) -> None:
    """Run each loop as a task; a bug in one of them ends the process."""
    for name, once, pace in work:
        tasks.create_task(run_loop(name, once, stopping, LogReporter(), pace), name=name)
