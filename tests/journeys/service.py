"""
`doorbuster up` in processes of its own, for tests that speak to it as its clients do.

Every role and both stores are real; a test may freeze, kill and restart them by
the process ids of run.json. Roles are asked for, never assumed: a restart gives a
role another id.
"""

import contextlib
import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from app.embedded.lock import LOCK_NAME
from app.embedded.run_file import RunFile, read_run_file

REPOSITORY: Final = Path(__file__).parents[2]
PROGRAM: Final = (sys.executable, "-m", "app")
START_SECONDS: Final = 60.0  # a machine that runs three suites at once
STOP_SECONDS: Final = 30.0


class RunningService:
    """
    One `doorbuster up` on one data directory; may be started again after it has ended.

    Args:
        data_dir: made when absent.
        api_processes: how many take orders.
        settings: what is not as in production, by the names of variables.
    """

    def __init__(self, data_dir: Path, *, api_processes: int, **settings: str) -> None:
        self.data_dir = data_dir
        self._api_processes = api_processes
        self._settings = settings
        self.ready: dict[str, Any] = {}
        self.restarts: list[dict[str, Any]] = []
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def start(self) -> None:
        """Start it, and wait for the line that says where it serves."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lines = queue.Queue()
        self._process = start_program(
            "up",
            *("--json", "--data-dir", str(self.data_dir)),
            *("--workers", str(self._api_processes), "--port", "0", "--admin-port", "0"),
            cwd=self.data_dir,
            env=self._settings,
        )
        self._listener = threading.Thread(target=self._listen, args=[self._process], daemon=True)
        self._listener.start()
        self.ready = json.loads(self._lines.get(timeout=START_SECONDS))

    @property
    def run(self) -> RunFile:
        """What run.json says at this moment."""
        return read_run_file(self.data_dir)

    def stop(self) -> int:
        """Ask it to drain and end; tell its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End the supervisor without a word; its children end with it."""
        return self._end(signal.SIGKILL)

    def forget(self) -> None:
        """End it if it still runs, and remove what it left outside of its data directory."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        with (self.data_dir / LOCK_NAME).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # free when its last process has gone
        notes = self.data_dir / "stores.json"
        if notes.exists() and (folder := json.loads(notes.read_text())["postgres_folder"]):
            shutil.rmtree(folder)

    def environment_of(self, role: str) -> dict[str, str]:
        """Read the settings that a role was started with."""
        raw = Path(f"/proc/{self.pids(role)[0]}/environ").read_bytes()
        pairs = (one.partition("=") for one in raw.decode().split("\0") if one)
        return {name: value for name, _, value in pairs}

    def pids(self, role: str) -> tuple[int, ...]:
        """Tell the present process ids of a role or store."""
        told = getattr(self.run.pids, role)
        return told if isinstance(told, tuple) else (told,)

    def log_of(self, name: str) -> list[dict[str, Any]]:
        """Read what a process has logged: `coordinator`, `api-0`, `worker-beside`, …"""
        places = (self.data_dir / "logs" / f"{name}.log", self.data_dir / f"{name}.log")
        text = "".join(place.read_text() for place in places if place.exists())
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    @contextlib.contextmanager
    def frozen(self, role: str) -> Iterator[None]:
        """Stop a role's processes in the middle of whatever they do; let them go at the end."""
        pids = self.pids(role)
        with frozen(*pids):
            yield

    def kill_role(self, role: str) -> None:
        """End a role's first process without a word; the supervisor starts another one."""
        os.kill(self.pids(role)[0], signal.SIGKILL)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                event = json.loads(line)
                if event["event"] == "restarted":
                    self.restarts.append(event)
                else:
                    self._lines.put(line)
        self._lines.put('{"event": "ended"}')

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        assert self._listener is not None
        self._process.send_signal(how)
        status = self._process.wait(STOP_SECONDS)
        self._listener.join()  # its end of the pipe is closed by the last child
        return status


@contextlib.contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Stop processes, and let those that still live go on at the end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def start_program(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start `doorbuster ARGUMENTS`; its errors go to a file beside where it runs."""
    with (cwd / f"{arguments[0]}.err").open("ab") as errors:
        return subprocess.Popen(  # noqa: S603  our own program
            [*PROGRAM, *arguments],
            env={**os.environ, **(env or {}), "PYTHONPATH": str(REPOSITORY)},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


@contextlib.contextmanager
def role_beside(service: RunningService, role: str, **settings: str) -> Iterator[int]:
    """
    Run one more process of a role, with the settings of the one that runs already.

    Args:
        service: whose role it is.
        role: as run.json calls it.
        settings: what is different, by the names of variables.

    Yields:
        Its process id; what it logs is in `<role>-beside.log` of the data directory.
    """
    command = "serve" if role == "api" else role
    with (service.data_dir / f"{role}-beside.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  our own program
            [*PROGRAM, command],
            env={**service.environment_of(role), "PYTHONPATH": str(REPOSITORY), **settings},
            cwd=service.data_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def run_program(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `doorbuster ARGUMENTS` to its end."""
    return subprocess.run(  # noqa: S603  our own program
        [*PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
