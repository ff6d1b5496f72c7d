"""
Keep a set of processes alive, and end them in order.

Each role is one process in a session of its own, so Ctrl-C reaches the supervisor alone. A role
that dies is started again: after 0.2 s, then after twice as long each time up to 2 s, until it has
served for a second. A role ends with its supervisor even when that is killed (leash.py).
"""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from app.embedded.account import OURSELVES, Account
from app.embedded.errors import RoleDidNotStart
from app.embedded.programs import last_words, leashed, open_log

RESTART_WAIT_SECONDS_MIN: Final = 0.2  # docs/INTERFACES.md §5
RESTART_WAIT_SECONDS_MAX: Final = 2.0
SERVED_SECONDS_MIN: Final = 1.0  # less than the 2 s after which fault tests kill a role again
READY_LOOK_SECONDS_MIN: Final = 0.01  # a store is up within 50-150 ms: a coarser look would show
READY_LOOK_SECONDS_MAX: Final = (
    0.2  # a long recovery is not slowed by questions, each one a session
)


def _nothing_to_prepare() -> None:
    """Most roles start from nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec:
    """
    One process to keep alive.

    Attributes:
        role: what events call it: valkey, postgres, coordinator, api, worker, sandbox.
        name: unique among all; names the log file.
        argv: the program by its absolute path, and its arguments.
        env: its whole environment; nothing is inherited.
        ready: whether it serves; asked until it does, must not raise.
        prepare: what to put in order before each start.
        account: who runs it.
        stop_signal: asks it to finish its work and end.
        orphan_signal: what it gets when the supervisor was killed.
        ready_wait_seconds: for the first start; later ones are given all the time they need.
        stop_wait_seconds: from the stop signal to SIGKILL.
    """

    role: str
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], Awaitable[bool]]
    prepare: Callable[[], None] = _nothing_to_prepare
    account: Account = OURSELVES
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    ready_wait_seconds: float = 60.0
    stop_wait_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class RoleRestarted:
    """A role died and serves again under another process id."""

    role: str
    pid: int


@dataclass(slots=True)
class _Kept:
    """A role and the process that plays it at present."""

    spec: RoleSpec
    process: asyncio.subprocess.Process
    watch: asyncio.Task[None] | None = None


class Supervisor:
    """
    Starts roles, restarts what dies, stops all in the reverse order of starting.

    Processes that play the same role one after the other in that order end together.

    Args:
        logs: folder for one `<name>.log` per role; made when absent.
        on_restart: told of each role that serves again.
        inherited: descriptors every role keeps open (the lock of the data directory).
    """

    def __init__(
        self,
        logs: Path,
        on_restart: Callable[[RoleRestarted], None],
        *,
        inherited: Sequence[int] = (),
    ) -> None:
        self._logs = logs
        self._on_restart = on_restart
        self._inherited = tuple(inherited)
        self._kept: list[_Kept] = []
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def pids(self, role: str) -> tuple[int, ...]:
        """Tell the present process ids of a role, in the order of starting."""
        return tuple(kept.process.pid for kept in self._kept if kept.spec.role == role)

    async def start(self, *specs: RoleSpec) -> None:
        """
        Start these roles at the same time and wait until each of them serves.

        Raises:
            RoleDidNotStart: one ended or was too slow; the others still run, until `stop`.
        """
        begun = [await self._begin(spec) for spec in specs]
        outcomes = await asyncio.gather(*map(self._first_start, begun), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def stop(self) -> None:
        """End every role, last started first; kill what does not end in its time."""
        self._stopping.set()
        for _, group in itertools.groupby(reversed(self._kept), key=lambda kept: kept.spec.role):
            await asyncio.gather(*map(_end, group))
        self._kept.clear()

    async def _begin(self, spec: RoleSpec) -> _Kept:
        kept = _Kept(spec, await self._spawn(spec))
        self._kept.append(kept)  # at once: `stop` must see whatever was started
        return kept

    async def _first_start(self, kept: _Kept) -> None:
        spec = kept.spec
        try:
            async with asyncio.timeout(spec.ready_wait_seconds):
                serves = await _wait_until_ready(kept)
        except TimeoutError:
            raise self._did_not_start(kept, f"not ready in {spec.ready_wait_seconds} s") from None
        if not serves:
            raise self._did_not_start(kept, f"ended with status {kept.process.returncode}")
        kept.watch = asyncio.create_task(self._keep_alive(kept), name=f"keep {spec.name}")

    async def _keep_alive(self, kept: _Kept) -> None:
        """Start the role again whenever it dies, until all is stopped."""
        wait_seconds = RESTART_WAIT_SECONDS_MIN
        served_seconds = await _serve(kept)
        while not self._stopping.is_set():
            if served_seconds >= SERVED_SECONDS_MIN:
                wait_seconds = RESTART_WAIT_SECONDS_MIN
            if await _is_set_within(self._stopping, wait_seconds):
                return
            wait_seconds = min(2 * wait_seconds, RESTART_WAIT_SECONDS_MAX)
            try:
                kept.process = await self._spawn(kept.spec)
            except OSError:  # the machine is short of memory or processes: try again
                served_seconds = 0.0
                continue
            if self._stopping.is_set():
                _signal(kept.process, kept.spec.stop_signal)
            served_seconds = await self._serve_again(kept)

    async def _serve_again(self, kept: _Kept) -> float:
        if not await _wait_until_ready(kept):
            return 0.0
        self._on_restart(RoleRestarted(kept.spec.role, kept.process.pid))
        return await _serve(kept)

    async def _spawn(self, spec: RoleSpec) -> asyncio.subprocess.Process:
        spec.prepare()
        with open_log(self._log(spec)) as log:
            return await asyncio.create_subprocess_exec(
                *leashed(spec.argv, account=spec.account, orphan_signal=spec.orphan_signal),
                env=dict(spec.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=self._inherited,
            )

    def _log(self, spec: RoleSpec) -> Path:
        return self._logs / f"{spec.name}.log"

    def _did_not_start(self, kept: _Kept, what: str) -> RoleDidNotStart:
        log = self._log(kept.spec)
        return RoleDidNotStart(
            role=kept.spec.name,
            reason=f"{what}: {last_words(log)}",
            log=log,
            status=kept.process.returncode,
        )


async def _wait_until_ready(kept: _Kept) -> bool:
    """Whether the role serves; False once its process has ended."""
    pause_seconds = READY_LOOK_SECONDS_MIN
    while kept.process.returncode is None:
        if await kept.spec.ready():
            return True
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(1.5 * pause_seconds, READY_LOOK_SECONDS_MAX)
    return False


async def _serve(kept: _Kept) -> float:
    """Wait for the end of a process that serves; tell for how many seconds it did."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await kept.process.wait()
    return loop.time() - began


async def _end(kept: _Kept) -> None:
    last = kept.watch or asyncio.create_task(_serve_out(kept))
    _signal(kept.process, kept.spec.stop_signal)
    _, still_runs = await asyncio.wait({last}, timeout=kept.spec.stop_wait_seconds)
    if still_runs:
        _signal(kept.process, signal.SIGKILL)
    await last


async def _serve_out(kept: _Kept) -> None:
    await kept.process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
