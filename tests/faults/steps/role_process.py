"""
One role of the service in a process of its own, quick to start and made to die.

The role is the product's: read its settings, arm its failpoints, run until it is killed. It is
forked from a process that has imported the service already, which saves a second for each of a
hundred starts.
"""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from app.embedded.leash import end_with_parent
from app.kernel.failpoints import arm_failpoints
from app.settings import Settings, read_settings
from app.telemetry import log
from app.wiring.api import run_api
from app.wiring.coordinator import run_coordinator
from app.wiring.worker import run_worker
from tests.waiting import eventually

DEATH_SECONDS: Final = 20.0


class Role(StrEnum):
    """A role that can be killed."""

    API = "api"
    COORDINATOR = "coordinator"
    WORKER = "worker"


_PLAY: Final[Mapping[Role, Callable[[Settings, asyncio.Event], Awaitable[None]]]] = {
    Role.API: run_api,
    Role.COORDINATOR: run_coordinator,
    Role.WORKER: run_worker,
}
_FORKING: Final = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload([f"app.wiring.{role}" for role in Role])


class RoleProcess:
    """A role that runs; use it as a context, or it outlives the test."""

    def __init__(self, role: Role, environment: Mapping[str, str], log_path: Path) -> None:
        self._process = _FORKING.Process(
            target=play, args=(role, dict(environment), str(log_path)), daemon=True
        )
        self._log_path = log_path

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    async def died(self) -> int:
        """Wait until it has ended by itself; tell how, as multiprocessing does."""
        await eventually(lambda: not self.is_alive, within_seconds=DEATH_SECONDS)
        assert self._process.exitcode is not None
        return self._process.exitcode

    def last_words(self) -> str:
        return self._log_path.read_text()[-2_000:]


def play(role: Role, environment: Mapping[str, str], log_path: str) -> None:
    """Be that role, in the child."""
    end_with_parent(os.getppid(), signal.SIGKILL)
    log_file = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log_file, 1)
    os.dup2(log_file, 2)
    settings = read_settings(environment)
    log.configure(role, process=role)
    arm_failpoints(settings.process.failpoints)
    asyncio.run(_PLAY[role](settings, asyncio.Event()))
