"""Tiny real programs under a real supervisor."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from app.embedded import leash
from app.embedded.errors import DataDirInUse, RoleDidNotStart
from app.embedded.lock import DataDirLock, is_locked
from app.embedded.supervisor import RoleSpec, Supervisor
from tests.stores.embedded_processes import eventually_gone, exists
from tests.waiting import eventually

# Each start adds a line to the file named by the first argument.
SAYS_IT_IS_UP = "import sys; open(sys.argv[1], 'a').write('up\\n'); "
WAITS = SAYS_IT_IS_UP + "sys.stdin = open(0); import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
ENDS_AT_ONCE = SAYS_IT_IS_UP + "sys.exit('out of paper')"
STAYS_ONLY_ONCE = """
import os, signal, sys

is_first = not os.path.exists(sys.argv[1])
open(sys.argv[1], "a").write("up\\n")
if is_first:
    signal.pause()
"""
# Tells of its end in a file that it shares with others.
SAYS_GOODBYE = """
import signal, sys

def say_goodbye(*_):
    open(sys.argv[2], "a").write(sys.argv[3] + "\\n")
    sys.exit(0)

signal.signal(signal.SIGTERM, say_goodbye)
open(sys.argv[1], "a").write("up\\n")
signal.pause()
"""


def starts(path):
    return path.read_text().count("up") if path.exists() else 0


def role(tmp_path, program, *arguments, name="role", **changes):
    """A role that is ready once it has said, in a file of its own, that it is up."""
    ups = tmp_path / f"{name}.ups"

    async def ready():
        return starts(ups) > 0

    argv = (sys.executable, "-c", program, str(ups), *map(str, arguments))
    return RoleSpec(role=name, name=name, argv=argv, ready=ready, **changes)


@pytest.fixture
def restarts():
    return []


@pytest.fixture
async def supervisor(tmp_path, restarts):
    async with Supervisor(tmp_path / "logs", restarts.append) as running:
        yield running


async def test_what_dies_is_started_again_and_told(tmp_path, supervisor, restarts):
    await supervisor.start(role(tmp_path, WAITS))
    (killed,) = supervisor.pids("role")
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: restarts)
    (pid,) = supervisor.pids("role")
    assert (restarts[0].role, restarts[0].pid) == ("role", pid)
    assert exists(pid)
    assert not exists(killed)


async def test_the_wait_grows_while_a_role_does_not_stay(tmp_path, supervisor):
    loop = asyncio.get_running_loop()
    ups = tmp_path / "role.ups"
    await supervisor.start(role(tmp_path, STAYS_ONLY_ONCE))
    os.kill(supervisor.pids("role")[0], signal.SIGKILL)
    seen = [loop.time()]
    for count in range(2, 5):
        await eventually(lambda count=count: starts(ups) >= count)
        seen.append(loop.time())
    waits = [later - earlier for earlier, later in itertools.pairwise(seen)]
    for wait, least in zip(waits, (0.2, 0.4, 0.8), strict=True):
        assert wait > 0.9 * least


async def test_a_role_that_ends_before_it_serves_says_why(tmp_path, supervisor):
    async def never():
        return False

    broken = replace(role(tmp_path, ENDS_AT_ONCE), ready=never)
    with pytest.raises(RoleDidNotStart, match="ended with status 1: out of paper") as raised:
        await supervisor.start(broken)
    assert raised.value.status == 1


async def test_a_role_that_never_serves_is_given_up(tmp_path, restarts):
    async def never():
        return False

    slow = replace(role(tmp_path, WAITS), ready=never, ready_wait_seconds=0.2)
    async with Supervisor(tmp_path / "logs", restarts.append) as supervisor:
        with pytest.raises(RoleDidNotStart, match=r"not ready in 0\.2 s"):
            await supervisor.start(slow)
        (pid,) = supervisor.pids("role")
    assert not exists(pid)


async def test_roles_end_in_the_reverse_order_of_starting(tmp_path, restarts):
    ends = tmp_path / "ends"
    async with Supervisor(tmp_path / "logs", restarts.append) as supervisor:
        names = ("first", "second", "third")
        await supervisor.start(
            *(role(tmp_path, SAYS_GOODBYE, ends, name, name=name) for name in names)
        )
    assert ends.read_text().split() == ["third", "second", "first"]
    assert restarts == []


async def test_a_role_that_ignores_the_stop_signal_is_killed(tmp_path, restarts):
    async with Supervisor(tmp_path / "logs", restarts.append) as supervisor:
        await supervisor.start(role(tmp_path, STUBBORN, stop_wait_seconds=0.2))
        (pid,) = supervisor.pids("role")
    assert not exists(pid)


async def test_a_role_has_a_session_of_its_own__so_ctrl_c_passes_it_by(tmp_path, supervisor):
    await supervisor.start(role(tmp_path, WAITS))
    (pid,) = supervisor.pids("role")
    assert os.getsid(pid) == pid


async def test_a_log_that_has_grown_too_big_is_set_aside(tmp_path, supervisor):
    log = tmp_path / "logs" / "role.log"
    with log.open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    await supervisor.start(role(tmp_path, WAITS))
    assert log.stat().st_size == 0
    assert log.with_name("role.log.1").exists()


def test_a_program_whose_parent_ended_before_the_leash_was_on_does_not_run(tmp_path):
    stranger = os.getppid()  # not the parent of what we start
    asked = [sys.executable, "-I", "-S", leash.__file__, stranger, signal.SIGKILL, -1, -1]
    touch = ["/usr/bin/touch", tmp_path / "ran"]
    ended = subprocess.run([*map(str, asked), *touch], capture_output=True, check=False)  # noqa: S603  our own leash
    assert b"the parent ended first" in ended.stderr
    assert not (tmp_path / "ran").exists()


async def test_the_lock_stays_until_the_last_child_has_gone(tmp_path):
    data_dir = tmp_path / "data"
    async with DataDirLock(data_dir) as lock:
        child = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=subprocess.PIPE, pass_fds=[lock.descriptor]
        )
    assert is_locked(data_dir)
    await child.communicate(b"")
    assert not is_locked(data_dir)
    async with DataDirLock(data_dir):
        with pytest.raises(DataDirInUse):
            await DataDirLock(data_dir).__aenter__()


async def test_the_lock_waits_for_the_children_of_a_dead_supervisor(tmp_path):
    async with DataDirLock(tmp_path) as lock:
        child = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=subprocess.PIPE, pass_fds=[lock.descriptor]
        )
    waiting = asyncio.create_task(DataDirLock(tmp_path).__aenter__())
    await child.communicate(b"")
    held = await waiting
    await held.__aexit__(None, None, None)
    await eventually_gone(child.pid)
