"""
One process that a test may start, kill, freeze and thaw, and nobody else does.

The product's own supervisor restarts what dies after 0.2 s; here the test decides when, because
some faults (a log that is cut, data that is deleted) happen while a store is down.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from app.embedded.programs import last_words, leashed, open_log
from app.embedded.supervisor import RoleSpec
from tests.faults.lab.timing import let_pass

READY_SECONDS: Final = 40.0  # two cores, shared with other suites
STOP_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 0.01
START_AGAIN_SECONDS: Final = 0.1  # Postgres refuses while children of a killed one still end


class DidNotServe(AssertionError):
    """A process of the site did not come up; told with the end of its log."""

    def __init__(self, name: str, log: Path) -> None:
        super().__init__(f"{name}: {last_words(log)}")


class Process:
    """
    One role or store.

    Attributes:
        spec: what runs; may be replaced while it is down.
        log: where it tells of itself.
        served_at: monotonic; when it began to serve, 0.0 while it does not.
    """

    def __init__(self, spec: RoleSpec, logs: Path) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.served_at = 0.0
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    async def start(self) -> None:
        """Start it and wait until it serves; one that ends is started again for a while."""
        give_up_at = time.monotonic() + READY_SECONDS
        while True:
            self.spawn()
            if await self._serves_before(give_up_at):
                self.served_at = time.monotonic()
                return
            if time.monotonic() >= give_up_at:
                raise DidNotServe(self.name, self.log)
            await let_pass(START_AGAIN_SECONDS)

    def spawn(self) -> None:
        """Start it, and do not wait."""
        assert not self.is_running
        self.spec.prepare()
        argv = leashed(
            self.spec.argv, account=self.spec.account, orphan_signal=self.spec.orphan_signal
        )
        with open_log(self.log) as log:
            self._popen = subprocess.Popen(  # noqa: S603  programs of ours
                argv,
                env=dict(self.spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it without a word."""
        assert self._popen is not None
        assert self.is_running, f"{self.name} had ended by itself: {last_words(self.log)}"
        self._popen.kill()
        self._popen.wait()
        self.served_at = 0.0

    async def ended(self, within_seconds: float) -> int:
        """Wait until it has ended by itself; tell how."""
        assert self._popen is not None
        give_up_at = time.monotonic() + within_seconds
        while (status := self._popen.poll()) is None:
            assert time.monotonic() < give_up_at, f"{self.name} still runs"
            await let_pass(LOOK_SECONDS)
        return status

    def freeze(self) -> None:
        """Stop it, and its children with it, in the middle of whatever they do."""
        for pid in family_of(self.pid):
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in family_of(self.pid):
            _signal(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to drain and end; end it if it does not."""
        if self._popen is None or not self.is_running:
            return
        self.thaw()
        self._popen.send_signal(self.spec.stop_signal)
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    async def _serves_before(self, give_up_at: float) -> bool:
        while self.is_running and time.monotonic() < give_up_at:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + READY_SECONDS):
                if await self.spec.ready():
                    return True
            await let_pass(LOOK_SECONDS)
        return False


def family_of(pid: int) -> list[int]:
    """List a process and all that descend from it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    family = [pid]
    for one in family:
        family += children.get(one, [])
    return family


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
