import asyncio
import os
import signal
import socket
import time

import asyncpg
import pytest

from app.kernel.errors import BadConfiguration, LedgerUnavailable, ShardUnavailable
from app.storage.shards import (
    Database,
    DatabaseSettings,
    LockPurpose,
    Shard,
    ShardMap,
    ShardRange,
    Shards,
    bucket_subject,
)
from tests.real_stores import session
from tests.stores.orders.lossy_proxy import lossy_proxy
from tests.waiting import eventually

IMPATIENT = DatabaseSettings(
    connections_max=2,
    connect_timeout_ms=300,
    statement_timeout_ms=300,
    lock_timeout_ms=100,
    idle_in_transaction_ms=100,
)
END_SESSION = "SELECT pg_terminate_backend($1, 5000)"


@pytest.fixture
async def shard(shard_urls):
    opened = Shard(0, shard_urls[0], IMPATIENT)
    yield opened
    await opened.close()


@pytest.fixture
def black_hole():
    """A port where connections are taken and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"postgresql://anybody@127.0.0.1:{listener.getsockname()[1]}/nothing"


# The map.


@pytest.mark.parametrize(
    ("sale", "bucket", "home", "owner"),
    [
        (1, 0, 1, 1),
        (2, 0, 0, 0),
        (2, 1, 0, 1),
        (9, 3, 1, 0),
        (10, 0, 1, 1),  # three shards from here on
        (11, 2, 2, 1),
        (12, 5, 0, 2),
    ],
)
def test_a_sale_stays_where_the_map_put_it_when_shards_are_added(sale, bucket, home, owner):
    shard_map = ShardMap([ShardRange(1, 2), ShardRange(10, 3)])

    assert shard_map.home(sale) == home
    assert shard_map.of(sale, 0) == home
    assert shard_map.of(sale, bucket) == owner


async def test_the_map_is_read_from_the_first_shard(shards):
    assert shards.directory is shards.all[0]
    assert shards.home(2) is shards.all[0]
    assert shards.of(2, 1) is shards.all[1]


async def test_no_shard_at_all_is_refused():
    with pytest.raises(BadConfiguration, match="SHARD_URLS"):
        Shards([], DatabaseSettings())


async def test_shards_in_the_wrong_order_are_refused(shard_urls):
    swapped = Shards(shard_urls[::-1], DatabaseSettings())

    with pytest.raises(BadConfiguration, match="place 0 says it is shard 1"):
        await swapped.read_map()
    await swapped.close()


async def test_fewer_shards_than_the_map_names_are_refused(shard_urls):
    one = Shards(shard_urls[:1], DatabaseSettings())

    with pytest.raises(BadConfiguration, match="does not fit 1 databases"):
        await one.read_map()
    await one.close()


async def test_a_database_without_tables_is_told_to_migrate(stores):
    with stores.empty_databases(1) as urls:
        bare = Shards(urls, DatabaseSettings())
        with pytest.raises(BadConfiguration, match="doorbuster migrate"):
            await bare.read_map()
        await bare.close()


# One that is away at the start.


NOBODY_THERE = "postgresql://nobody@127.0.0.1:9/nothing"


@pytest.fixture
async def half(shard_urls):
    """The second shard is away when the map is read, behind a wire that can be mended."""
    async with lossy_proxy(shard_urls[1]) as (wire, url):
        wire.cut()
        shards = Shards([shard_urls[0], url], DatabaseSettings())
        assert [error.fields["shard"] for error in await shards.read_map()] == [1]
        yield shards, wire
        await shards.close()


async def test_the_map_of_any_shard_will_do(shard_urls):
    for index in range(2):
        urls = [*shard_urls]
        urls[index] = NOBODY_THERE
        shards = Shards(urls, DatabaseSettings())
        away = await shards.read_map()
        assert [error.fields["shard"] for error in away] == [index]
        assert [shards.map.home(sale) for sale in (2, 3)] == [0, 1]
        with pytest.raises(ShardUnavailable):
            async with shards.all[index].connection():
                pass
        await shards.close()


async def test_no_shard_that_answers_is_no_start():
    shards = Shards([NOBODY_THERE, NOBODY_THERE], DatabaseSettings())
    with pytest.raises(ShardUnavailable):
        await shards.read_map()
    await shards.close()


async def test_maps_that_differ_are_refused(shard_urls, shards):
    async with shards.all[1].connection() as connection:
        await connection.execute("INSERT INTO shard_map VALUES (7, 2)")
    late = Shards(shard_urls, DatabaseSettings())
    with pytest.raises(BadConfiguration, match="different maps"):
        await late.read_map()
    await late.close()


async def test_a_shard_joins_when_it_is_back(half):
    shards, wire = half
    wire.mend()
    async with await shards.all[1].lock_session() as lock:
        assert await lock.try_lock(LockPurpose.MOVE)
    async with shards.all[1].connection() as connection:
        assert await connection.fetchval("SELECT shard FROM shard_identity") == 1


WRONG = [
    ("UPDATE shard_identity SET shard = 0", "says it is shard 0"),
    ("INSERT INTO shard_map VALUES (7, 2)", "different maps"),
    ("DROP TABLE shard_identity", "doorbuster migrate"),
]


@pytest.mark.parametrize(("statement", "why"), WRONG)
async def test_what_comes_back_as_another_stays_away(half, shard_urls, statement, why):
    """Nothing is asked of it, by nobody; the others are not stopped by it."""
    shards, wire = half
    async with session(shard_urls[1]) as other:
        await other.execute(statement)
    wire.mend()
    for _ in range(2):
        with pytest.raises(ShardUnavailable, match=why):
            async with shards.all[1].connection():
                pass
        with pytest.raises(ShardUnavailable, match=why):
            await shards.all[1].lock_session()
    async with shards.all[0].connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


# What does not answer.


async def test_a_port_where_nobody_listens_is_unavailable():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"postgresql://anybody@127.0.0.1:{probe.getsockname()[1]}/nothing"
    shard = Shard(3, nobody, IMPATIENT)

    with pytest.raises(ShardUnavailable) as unavailable:
        async with shard.connection():
            pass

    assert unavailable.value.fields["shard"] == 3


async def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up_in_time(black_hole):
    shard = Shard(0, black_hole, IMPATIENT)
    started = time.monotonic()

    with pytest.raises(ShardUnavailable):
        async with shard.connection():
            pass
    with pytest.raises(ShardUnavailable):
        await shard.lock_session()

    assert time.monotonic() - started < 4 * IMPATIENT.connect_timeout_ms / 1000
    await shard.close()


async def test_a_ledger_that_does_not_answer_is_told_apart_from_a_shard(black_hole):
    ledger = Database(black_hole, IMPATIENT)

    with pytest.raises(LedgerUnavailable):
        async with ledger.connection():
            pass


async def test_a_session_frozen_in_the_middle_of_a_statement_is_given_up_and_never_lent_again(
    shard,
):
    async with shard.connection() as connection:
        frozen = await connection.fetchval("SELECT pg_backend_pid()")
    os.kill(frozen, signal.SIGSTOP)
    try:
        with pytest.raises(ShardUnavailable):
            async with shard.connection() as connection:
                await connection.fetchval("SELECT 1")
        async with shard.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") != frozen
    finally:
        os.kill(frozen, signal.SIGCONT)


async def test_a_session_that_the_server_ended_is_unavailable_and_the_next_one_serves(shard):
    with pytest.raises(ShardUnavailable):
        async with shard.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            async with session(shard.url) as other:
                await other.fetchval(END_SESSION, pid)
            await connection.fetchval("SELECT 1")

    async with shard.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_row_that_somebody_else_holds_is_waited_for_no_longer_than_told(shard):
    lock_row = "SELECT 1 FROM shard_identity FOR UPDATE"
    async with session(shard.url) as other, other.transaction():
        await other.execute(lock_row)

        with pytest.raises(ShardUnavailable) as unavailable:
            async with shard.transaction() as connection:
                await connection.execute(lock_row)

    assert unavailable.value.fields["sqlstate"] == "55P03"


async def test_a_transaction_left_idle_loses_its_locks(shard):
    with pytest.raises(ShardUnavailable):
        async with shard.transaction() as connection:
            await connection.execute("UPDATE shard_identity SET deployment = 'never'")
            async with session(shard.url) as other:
                await other.execute("SELECT 1 FROM shard_identity FOR UPDATE")
            await connection.execute("SELECT 1")

    async with session(shard.url) as other:
        assert await other.fetchval("SELECT deployment FROM shard_identity") != "never"


async def test_connections_that_are_all_lent_out_are_waited_for_no_longer_than_told(shard):
    async with shard.connection(), shard.connection():
        with pytest.raises(ShardUnavailable):
            async with shard.connection():
                pass


async def test_a_cancelled_caller_takes_its_connection_along(shard):
    sleeping = asyncio.Event()

    async def sleep() -> None:
        async with shard.connection() as connection:
            sleeping.set()
            await connection.fetchval("SELECT pg_sleep(60)")

    task = asyncio.create_task(sleep())
    await sleeping.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with shard.connection() as one, shard.connection() as two:
        assert await one.fetchval("SELECT 1") == await two.fetchval("SELECT 1")


# What answers.


async def test_what_the_statement_itself_did_wrong_keeps_its_own_error(shard):
    with pytest.raises(asyncpg.UniqueViolationError):
        async with shard.connection() as connection:
            await connection.execute("INSERT INTO shard_map VALUES (1, 9)")
    with pytest.raises(asyncpg.DataError):
        async with shard.connection() as connection:
            await connection.execute("SELECT $1::int", 2**80)


async def test_a_transaction_that_raises_leaves_nothing(shard):
    with pytest.raises(ZeroDivisionError):
        async with shard.transaction() as connection:
            await connection.execute("DELETE FROM shard_map")
            raise ZeroDivisionError

    async with shard.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM shard_map") == 1


async def test_json_goes_in_and_comes_out_as_values(shard):
    async with shard.connection() as connection:
        assert await connection.fetchval("SELECT $1::jsonb", {"units": [1, None]}) == {
            "units": [1, None]
        }


async def test_a_closed_database_opens_again_when_it_is_asked(shard):
    async with shard.connection() as connection:
        await connection.fetchval("SELECT 1")
    await shard.close()

    async with shard.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


# Locks.


async def test_a_lock_has_one_holder_and_is_free_when_it_leaves(shard):
    async with await shard.lock_session() as second:
        async with await shard.lock_session() as first:
            assert await first.try_lock(LockPurpose.FLUSH, 7)
            assert await first.try_lock(LockPurpose.FLUSH, 7)  # its own: harmless
            assert not await second.try_lock(LockPurpose.FLUSH, 7)
            assert await second.try_lock(LockPurpose.FLUSH, 8)
            assert await second.try_lock(LockPurpose.MOVE, 7)

        assert await eventually(lambda: second.try_lock(LockPurpose.FLUSH, 7))


async def test_a_lock_that_was_let_go_can_be_taken(shard):
    async with await shard.lock_session() as first, await shard.lock_session() as second:
        await first.try_lock(LockPurpose.MIGRATE)
        await first.unlock(LockPurpose.MIGRATE)

        assert await second.try_lock(LockPurpose.MIGRATE)


async def test_a_holder_whose_session_ended_is_told_and_another_takes_over(shard):
    async with await shard.lock_session() as first, await shard.lock_session() as second:
        await first.try_lock(LockPurpose.COORDINATE)
        async with session(shard.url) as other:
            await other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
            )

        assert await second.try_lock(LockPurpose.COORDINATE)
        with pytest.raises(ShardUnavailable):
            await first.ping()


async def test_a_holder_that_falls_silent_loses_its_lock_and_one_that_pings_does_not(shard):
    async with (
        await shard.lock_session() as silent,
        await shard.lock_session() as lively,
        await shard.lock_session() as waiting,
    ):
        await silent.try_lock(LockPurpose.FLUSH, 1)
        await lively.try_lock(LockPurpose.FLUSH, 2)

        async def is_lost() -> bool:
            await lively.ping()
            return await waiting.try_lock(LockPurpose.FLUSH, 1)

        assert await eventually(is_lost)
        assert not await waiting.try_lock(LockPurpose.FLUSH, 2)
        with pytest.raises(ShardUnavailable):
            await silent.ping()


def test_every_bucket_of_every_sale_has_a_lock_of_its_own():
    subjects = {bucket_subject(sale, bucket) for sale in (1, 2, 3, 4_194_303) for bucket in (0, 63)}

    assert len(subjects) == 8
    assert max(subjects) < 2**31
