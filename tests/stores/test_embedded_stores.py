import contextlib
import json
import os
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from app.embedded.errors import DataDirInUse, PostgresFolderLost
from app.embedded.postgres import copy_binaries, drop_stale_pid, find_place, wheel_package
from app.embedded.stores import EmbeddedStores
from tests.stores.embedded_processes import (
    NOBODY,
    RUN_STORES,
    RUN_STORES_AS_NOBODY,
    end_script,
    eventually_gone,
    exists,
    noted_folder,
    python_for,
    start_script,
)
from tests.waiting import eventually

PLACE_ORDER = "redis.call('HSET', KEYS[1], 'remaining', 9) return redis.call('TIME')"
is_root = os.geteuid() == 0


async def write_mark(stores):
    redis = Redis.from_url(stores.redis_url)
    await redis.set("doorbuster:mark", "kept")
    await redis.aclose()
    ledger = await asyncpg.connect(stores.ledger_url)
    await ledger.execute("CREATE TABLE mark AS SELECT 'kept' AS said")
    await ledger.close()


async def read_mark(redis_url, ledger_url):
    redis = Redis.from_url(redis_url)
    ledger = await asyncpg.connect(ledger_url)
    marks = (await redis.get("doorbuster:mark"), await ledger.fetchval("SELECT said FROM mark"))
    await redis.aclose()
    await ledger.close()
    return marks


KEPT = (b"kept", "kept")


def owner_of(pid):
    return Path(f"/proc/{pid}").stat().st_uid


@contextlib.contextmanager
def stranger_of(account):
    """A program of the account that has nothing to do with Postgres."""
    who = {"user": account.uid, "group": account.gid} if account.is_other else {}
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, **who) as stranger:
        yield stranger.pid


async def test_two_stores_stand_side_by_side(tmp_path):
    one = EmbeddedStores(tmp_path / "one", discard=True)
    two = EmbeddedStores(tmp_path / "two", discard=True)
    async with one, two:
        urls = {one.redis_url, two.redis_url, *one.shard_urls, *two.shard_urls}
        assert len(urls) == 6
        await write_mark(one)
        await write_mark(two)


async def test_a_restart_finds_the_data_under_the_same_urls(tmp_path):
    async with EmbeddedStores(tmp_path) as first:
        urls = (first.redis_url, first.ledger_url)
        await write_mark(first)
    async with EmbeddedStores(tmp_path, discard=True) as second:
        assert (second.redis_url, second.ledger_url) == urls
        assert await read_mark(*urls) == KEPT


@pytest.mark.parametrize("role", ["valkey", "postgres"])
async def test_a_killed_store_serves_again_on_its_port_with_its_data(tmp_path, role):
    restarts = []
    async with EmbeddedStores(tmp_path, on_restart=restarts.append, discard=True) as stores:
        urls = (stores.redis_url, stores.ledger_url)
        await write_mark(stores)
        killed = stores.pids[role]
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: restarts)
        assert restarts[0].role == role
        assert restarts[0].pid == stores.pids[role] != killed
        assert (stores.redis_url, stores.ledger_url) == urls
        assert await read_mark(*urls) == KEPT


async def test_all_end_with_a_parent_that_is_killed__and_the_data_is_kept(tmp_path):
    parent = await start_script(RUN_STORES, tmp_path)
    told = json.loads(await parent.stdout.readline())
    ledger = await asyncpg.connect(told["ledger"])
    await ledger.execute("CREATE TABLE mark AS SELECT 'kept' AS said")
    redis = Redis.from_url(told["redis"])
    await redis.set("doorbuster:mark", "kept")
    parent.kill()
    await end_script(parent)
    await eventually_gone(*told["pids"].values())
    ledger.terminate()
    await redis.aclose()
    async with EmbeddedStores(tmp_path, discard=True) as stores:
        assert await read_mark(stores.redis_url, stores.ledger_url) == KEPT


@pytest.fixture
def folder_of_nobody():
    """A folder that another account can reach: pytest's own are closed to all but us."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY.uid, NOBODY.gid)
        yield Path(folder)


@pytest.mark.skipif(not is_root, reason="only root can become somebody else")
async def test_an_ordinary_user_keeps_everything_in_the_data_directory(folder_of_nobody):
    python = python_for(NOBODY)
    if python is None:
        pytest.skip("an ordinary user reaches no Python, or not this repository")
    process = await start_script(RUN_STORES_AS_NOBODY, folder_of_nobody, python)
    told = json.loads(await process.stdout.readline())
    assert {owner_of(pid) for pid in told["pids"].values()} == {NOBODY.uid}
    assert (folder_of_nobody / "postgres" / "cluster" / "PG_VERSION").exists()
    assert await end_script(process) == 0
    await eventually_gone(*told["pids"].values())


@pytest.mark.skipif(not is_root, reason="Postgres runs as somebody else only for root")
async def test_root_lets_another_run_postgres__and_opens_no_folder(tmp_path):
    tmp_path.chmod(0o700)
    async with EmbeddedStores(tmp_path / "below", discard=True) as stores:
        assert owner_of(stores.pids["postgres"]) != 0
        elsewhere = noted_folder(tmp_path / "below")
        assert elsewhere
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert noted_folder(tmp_path / "below") == ""


async def test_a_second_start_on_the_same_directory_is_refused(tmp_path):
    async with EmbeddedStores(tmp_path, with_postgres=False):
        with pytest.raises(DataDirInUse, match=f"in use by process {os.getpid()}"):
            await EmbeddedStores(tmp_path, with_postgres=False).__aenter__()


async def test_secrets_are_readable_by_their_owner_alone(tmp_path):
    async with EmbeddedStores(tmp_path, with_postgres=False):
        paths = [tmp_path / "stores.json", tmp_path / "valkey" / "valkey.conf"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


async def test_the_api_user_sells_and_does_nothing_else(tmp_path):
    async with EmbeddedStores(tmp_path, with_postgres=False) as stores:
        admin, api = Redis.from_url(stores.redis_url), Redis.from_url(stores.redis_api_url)
        sha = await admin.script_load(PLACE_ORDER)
        assert await api.evalsha(sha, 1, "doorbuster:{1.0}:e1:state")
        for refused in (
            api.evalsha(sha, 1, "another:{1.0}:e1:state"),
            api.script_load(PLACE_ORDER),
            api.eval(PLACE_ORDER, 1, "doorbuster:{1.0}:e1:state"),
            api.delete("doorbuster:{1.0}:e1:state"),
            api.publish("another:{1.0}:committed", "x"),
            api.config_get("*"),
        ):
            with pytest.raises(NoPermissionError):
                await refused
        await admin.aclose()
        await api.aclose()


async def test_postgres_wants_a_password__sees_chinese__and_syncs(tmp_path):
    async with EmbeddedStores(tmp_path, with_valkey=False, discard=True) as stores:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(stores.shard_urls[0].replace("doorbuster:", "doorbuster:x"))
        shard = await asyncpg.connect(stores.shard_urls[0])
        await shard.execute("CREATE EXTENSION pg_trgm")
        assert await shard.fetchval("SELECT show_trgm('秒杀')")
        wanted = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
        assert {name: await shard.fetchval(f"SHOW {name}") for name in wanted} == wanted
        await shard.close()


async def test_a_stale_pid_that_belongs_to_another_program_does_not_block(tmp_path):
    async with EmbeddedStores(tmp_path, with_valkey=False) as stores:
        assert stores.pids
    place = find_place(tmp_path, noted_folder(tmp_path))
    with stranger_of(place.account) as pid:
        note = f"{pid}\n{place.cluster}\n0\n5432\n\n\n"
        (place.cluster / "postmaster.pid").write_text(note, "ascii")
        async with EmbeddedStores(tmp_path, with_valkey=False, discard=True) as stores:
            assert stores.pids["postgres"] != pid
        assert exists(pid)


def test_a_stale_pid_of_no_process_is_left_to_postgres(tmp_path):
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    note = tmp_path / "postmaster.pid"
    note.write_text(f"{ended.pid}\n")
    drop_stale_pid(tmp_path)
    assert note.exists()


def test_a_noted_folder_that_is_gone_is_not_replaced_by_an_empty_one(tmp_path):
    with pytest.raises(PostgresFolderLost, match="which is gone"):
        find_place(tmp_path, str(tmp_path / "gone"))


def test_copied_binaries_run_from_where_they_are(tmp_path):
    binaries = copy_binaries(wheel_package(), tmp_path / "binaries")
    for program in ("initdb", "postgres"):
        asked = [binaries / program, "--version"]
        said = subprocess.check_output(asked, env={}, text=True)  # noqa: S603  our own copy
        assert said.startswith(program)
