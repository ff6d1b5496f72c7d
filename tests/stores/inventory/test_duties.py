"""Who does what: one process at a time, and the next one when its session is gone."""

import asyncio

import pytest

from app.kernel.errors import ShardUnavailable
from app.storage.duties import Duties
from app.storage.shards import LockPurpose
from tests.real_stores import session
from tests.waiting import eventually

END_LOCK_SESSIONS = """
SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
WHERE application_name = 'doorbuster lock' AND datname = current_database()"""


@pytest.fixture
async def pair(shards):
    """Two processes that want the same duties on one shard."""
    both = Duties(shards.all[0]), Duties(shards.all[0])
    yield both
    for duties in both:
        await duties.close()


async def end_sessions(shards):
    async with session(shards.all[0].url) as admin:
        assert await admin.fetchval(END_LOCK_SESSIONS)


async def test_a_duty_has_one_owner(pair):
    one, other = pair
    assert await one.has(LockPurpose.MOVE)
    assert await one.has(LockPurpose.MOVE)
    assert not await other.has(LockPurpose.MOVE)
    assert await other.has(LockPurpose.CLOSE)
    assert await other.has(LockPurpose.FLUSH, 1)
    assert await one.has(LockPurpose.FLUSH, 2)
    assert not await one.has(LockPurpose.FLUSH, 1)


async def test_a_duty_that_is_left_is_free(pair):
    one, other = pair
    await one.has(LockPurpose.FLUSH, 7)
    await one.leave(LockPurpose.FLUSH, 7)
    await one.leave(LockPurpose.FLUSH, 8)  # never had

    assert await other.has(LockPurpose.FLUSH, 7)
    assert not await one.has(LockPurpose.FLUSH, 7)


async def test_who_stops_leaves_everything(pair):
    one, other = pair
    for purpose in (LockPurpose.MOVE, LockPurpose.CLOSE):
        await one.has(purpose)
    await one.close()

    assert await other.has(LockPurpose.MOVE)
    assert await other.has(LockPurpose.CLOSE)


async def test_a_session_that_is_lost_takes_its_duties_along(pair, shards):
    one, other = pair
    await one.has(LockPurpose.MOVE)
    await end_sessions(shards)
    assert await other.has(LockPurpose.MOVE)

    with pytest.raises(ShardUnavailable):
        await one.has(LockPurpose.CLOSE)
    assert not await one.has(LockPurpose.MOVE)
    assert await one.has(LockPurpose.CLOSE)


async def test_a_lost_session_is_noticed_although_nothing_is_asked_of_it(pair, shards):
    one, other = pair
    await one.has(LockPurpose.MOVE)
    stopping = asyncio.Event()
    keeping = asyncio.create_task(one.keep(stopping))
    await end_sessions(shards)
    assert await other.has(LockPurpose.MOVE)

    async def is_forgotten():
        return not await one.has(LockPurpose.MOVE)

    await eventually(is_forgotten)
    stopping.set()
    await keeping


async def test_keeping_ends_with_leaving_everything(pair):
    one, other = pair
    await one.has(LockPurpose.MOVE)
    stopping = asyncio.Event()
    stopping.set()
    await one.keep(stopping)

    assert await other.has(LockPurpose.MOVE)


async def test_many_tasks_of_one_process_share_a_session(pair, shards):
    one, _ = pair
    taken = await asyncio.gather(*(one.has(LockPurpose.FLUSH, bucket) for bucket in range(20)))
    async with session(shards.all[0].url) as admin:
        sessions = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'doorbuster lock' AND datname = current_database()"
        )
    assert (taken, sessions) == ([True] * 20, 1)
