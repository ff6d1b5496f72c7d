import json
import os
import signal
import socket
import stat
import sys

import pytest
from click.testing import CliRunner

from app.cli.up import up
from app.embedded.all_in_one import UpOptions, everything_running, ready_event
from app.embedded.errors import NotRunning, RoleDidNotStart
from app.embedded.lock import DataDirLock
from app.embedded.ports import LOCALHOST, is_free
from app.embedded.probes import answers_ready, listens
from app.embedded.run_file import read_run_file
from tests.stores.embedded_processes import (
    HERE,
    RUN_UP,
    end_script,
    eventually_gone,
    forget_postgres,
    start_script,
)
from tests.waiting import eventually

STAND_IN = (sys.executable, str(HERE / "embedded_stand_in.py"))
ELSEWHERE = {  # with these no embedded store is started
    "redis_url": "redis://127.0.0.1:1/0",
    "shard_urls": ("postgresql://127.0.0.1:1/a",),
    "ledger_url": "postgresql://127.0.0.1:1/b",
}
READY_FIELDS = ["event", "public", "admin", "admin_token", "sandbox", "redis", "shards", "ledger"]
PID_FIELDS = ["supervisor", "valkey", "postgres", "coordinator", "api", "worker"]


def options(data_dir, **changes):
    told = {"workers": 2, "port": 0, "admin_port": 0, "data_dir": data_dir, "program": STAND_IN}
    return UpOptions(**{**told, **changes})


def port_of(url):
    return int(url.rpartition(":")[2])


def all_pids(pids):
    roles = (pids[role] for role in PID_FIELDS[1:])
    return [pid for role in roles for pid in (role if isinstance(role, list) else [role])]


@pytest.fixture
def data_dir(tmp_path):
    yield tmp_path
    forget_postgres(tmp_path)


@pytest.fixture
def taken_port():
    with socket.create_server((LOCALHOST, 0)) as listener:
        yield listener.getsockname()[1]


async def test_it_says_where_everything_is_and_takes_it_all_away(tmp_path):
    async with everything_running(options(tmp_path, **ELSEWHERE), print) as run:
        event = ready_event(run)
        assert list(event) == [*READY_FIELDS, "pids"]
        assert list(event["pids"]) == PID_FIELDS
        assert run.pids.supervisor == os.getpid()
        assert len(run.pids.api) == 2
        assert (run.pids.valkey, run.pids.postgres) == (None, None)
        assert await answers_ready(port_of(run.admin))
        assert await listens(port_of(run.public))
        assert await listens(port_of(run.sandbox))
        assert read_run_file(tmp_path) == run
        assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o600
    await eventually_gone(run.pids.coordinator, *run.pids.api, *run.pids.worker)
    assert is_free(port_of(run.public))
    with pytest.raises(NotRunning):
        read_run_file(tmp_path)


async def test_what_dies_is_replaced__also_in_run_json(tmp_path):
    restarts = []
    async with everything_running(options(tmp_path, **ELSEWHERE), restarts.append) as run:
        killed = {"api": run.pids.api[1], "coordinator": run.pids.coordinator}
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: len(restarts) == 2)
        now = read_run_file(tmp_path)
        assert {event.role: event.pid for event in restarts} == {
            "api": now.pids.api[1],
            "coordinator": now.pids.coordinator,
        }
        assert now.pids.api[0] == run.pids.api[0]
        assert now.pids.api[1] != killed["api"]


async def test_secrets_are_made_once(tmp_path):
    async with everything_running(options(tmp_path, **ELSEWHERE), print) as first:
        pass
    async with everything_running(options(tmp_path, **ELSEWHERE), print) as second:
        pass
    assert (first.admin_token, first.auth_keys) == (second.admin_token, second.auth_keys)


async def test_a_migration_that_fails_stops_the_start(tmp_path):
    asked = options(tmp_path, program=(sys.executable, "-c", "raise SystemExit(5)"), **ELSEWHERE)
    with pytest.raises(RoleDidNotStart) as raised:
        async with everything_running(asked, print):
            pass
    assert raised.value.status == 5


async def test_ctrl_c_stops_everything_and_exits_130(data_dir):
    process = await start_script(RUN_UP, data_dir)
    event = json.loads(await process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert await end_script(process) == 128 + signal.SIGINT
    await eventually_gone(*all_pids(event["pids"]))
    assert not (data_dir / "run.json").exists()


async def test_a_killed_supervisor_leaves_no_process__and_its_run_json_is_told_stale(data_dir):
    process = await start_script(RUN_UP, data_dir)
    event = json.loads(await process.stdout.readline())
    process.kill()
    await end_script(process)
    await eventually_gone(*all_pids(event["pids"]))
    with pytest.raises(NotRunning, match="left behind"):
        read_run_file(data_dir)


def test_a_taken_port_exits_5_and_says_what_to_do(tmp_path, taken_port):
    arguments = ["--port", str(taken_port), "--admin-port", "0", "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(up, arguments)
    assert result.exit_code == 5
    assert f"Port {taken_port} is taken" in result.stderr
    assert "--port" in result.stderr


async def test_a_data_directory_in_use_exits_1(tmp_path):
    async with DataDirLock(tmp_path):
        script = "import sys; from app.cli.up import up; up(['--data-dir', sys.argv[1]])"
        process = await start_script(script, tmp_path)
        assert await end_script(process) == 1
