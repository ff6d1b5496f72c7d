"""
Generators: processes of their own that prepare clicks, then send them when told.

They are apart from the bench, so that what they cost can be weighed and nothing
else runs on their event loop.
"""

import asyncio
import gc
import multiprocessing
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, Self, cast

import uvloop

from loadtest.bench.drivers import make_driver
from loadtest.bench.job import Job, Tally, merge

_READY: Final = "ready"
_GO: Final = "go"


class Generators:
    """
    One or more generator processes, while it is entered.

    Attributes:
        pids: of the processes.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._children: list[tuple[BaseProcess, Connection]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(cast("int", child.pid) for child, _ in self._children)

    async def __aenter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        for _ in range(self._count):
            ours, theirs = context.Pipe()
            child = context.Process(target=play_jobs, args=(theirs,), daemon=True)
            child.start()
            theirs.close()
            self._children.append((child, ours))
        return self

    async def __aexit__(self, *_: object) -> None:
        for child, ours in self._children:
            ours.close()
            await asyncio.to_thread(child.join, 2)
            if child.is_alive():
                child.kill()

    async def play(self, job: Job, meanwhile: Callable[[], Awaitable[None]]) -> Tally:
        """
        Play one job in all generators at once.

        Args:
            job: shared out among them.
            meanwhile: begun when the first click is sent, after all is prepared.
        """
        pipes = [ours for _, ours in self._children]
        for index, ours in enumerate(pipes):
            ours.send(job.part(index, len(pipes)))
        for ours in pipes:
            assert await asyncio.to_thread(ours.recv) == _READY
        for ours in pipes:
            ours.send(_GO)
        _, *tallies = await asyncio.gather(
            meanwhile(), *(asyncio.to_thread(ours.recv) for ours in pipes)
        )
        return merge(tallies)


def play_jobs(pipe: Connection) -> None:
    """Play jobs until the other end of the pipe is closed: a generator's whole life."""
    while True:
        try:
            job: Job = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        requests = job.deck.requests()
        pipe.send(_READY)
        pipe.recv()
        gc.freeze()
        gc.disable()  # nothing here makes cycles, and a pause would look like the service's
        pipe.send(uvloop.run(make_driver(job, requests).play()))
        del requests
        gc.enable()
        gc.unfreeze()
