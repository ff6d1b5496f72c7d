"""ScriptConnection and call_script on a real socket: what was sent, and whose reply it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import pytest
from redis.asyncio import Redis

from app.inventory.bucket import read_bucket
from app.kernel.errors import OutcomeUnknown, RedisRefused, RedisUnavailable, ScriptMissing
from app.orders.answers import Placed, Replay
from app.storage.lua import bind_script, call_script, load_scripts, read_script
from app.storage.redis import call_once, open_redis
from app.storage.script_connection import ScriptConnection
from tests.lua.bucket_on_valkey import INCARNATION, BucketOnValkey, an_order
from tests.real_stores import RealStores

ECHO: Final = "#!lua\nreturn ARGV[1]"
SHORT_MS: Final = 50
LONG_MS: Final = 5_000

# Holds back whatever may write, as a frozen server would; CLIENT UNPAUSE gets through.
PAUSE_MS: Final = 10_000

OK: Final = b"+OK\r\n"


@pytest.fixture
async def echo(redis: Redis) -> str:
    """The SHA of a script that answers its argument."""
    sha = await redis.script_load(ECHO)
    return sha.decode() if isinstance(sha, bytes) else sha


@pytest.fixture
async def admin(stores: RealStores) -> AsyncIterator[ScriptConnection]:
    opened = ScriptConnection(stores.redis_url, client_name="test-admin", connect_timeout_ms=5_000)
    yield opened
    await opened.close()


async def ask(connection: ScriptConnection, sha: str, word: str, timeout_ms: int = LONG_MS) -> str:
    reply: bytes = await connection.evalsha(sha, [], [word], timeout_ms=timeout_ms)
    return reply.decode()


@contextlib.asynccontextmanager
async def paused(redis: Redis) -> AsyncIterator[None]:
    await redis.client_pause(PAUSE_MS, all=False)
    try:
        yield
    finally:
        await redis.client_unpause()


async def test_an_unknown_script_is_missing(admin: ScriptConnection) -> None:
    with pytest.raises(ScriptMissing):
        await ask(admin, "0" * 40, "a")


async def test_a_slow_answer_never_meets_the_next_call(
    admin: ScriptConnection, redis: Redis, echo: str
) -> None:
    assert await ask(admin, echo, "a") == "a"
    async with paused(redis):
        with pytest.raises(OutcomeUnknown):
            await ask(admin, echo, "b", SHORT_MS)
    assert await ask(admin, echo, "c") == "c"


async def test_a_cancelled_call_never_meets_the_next(
    admin: ScriptConnection, redis: Redis, echo: str
) -> None:
    assert await ask(admin, echo, "a") == "a"
    async with paused(redis):
        call = asyncio.create_task(ask(admin, echo, "b"))
        done, _ = await asyncio.wait([call], timeout=SHORT_MS / 1000)
        assert not done
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await ask(admin, echo, "c") == "c"


async def test_a_connection_closed_while_idle_is_opened_again(
    admin: ScriptConnection, redis: Redis, echo: str
) -> None:
    assert await ask(admin, echo, "a") == "a"
    (client,) = [c for c in await redis.client_list() if c["name"] == "test-admin"]
    await redis.client_kill_filter(_id=client["id"])
    assert await ask(admin, echo, "b") == "b"


async def test_one_call_at_a_time(admin: ScriptConnection, echo: str) -> None:
    first = asyncio.create_task(ask(admin, echo, "a"))
    await asyncio.sleep(0)
    with pytest.raises(AssertionError):
        await ask(admin, echo, "b")
    assert await first == "a"


async def test_after_a_refusal_the_connection_is_kept(
    admin: ScriptConnection, redis: Redis, echo: str
) -> None:
    await ask(admin, echo, "a")
    before = (await redis.info("stats"))["total_connections_received"]
    for _ in range(3):
        with pytest.raises(ScriptMissing):
            await ask(admin, "0" * 40, "a")
    assert (await redis.info("stats"))["total_connections_received"] == before


async def test_nobody_listens(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nothing.sock"
    connection = ScriptConnection(url, client_name="test")
    with pytest.raises(RedisUnavailable):
        await ask(connection, "0" * 40, "a")
    client = open_redis(url, client_name="test")
    with pytest.raises(RedisUnavailable):
        await call_once(client, "PING", timeout_ms=LONG_MS)


async def test_a_wrong_password_is_a_refusal(stores: RealStores) -> None:
    parts = urlsplit(stores.redis_url)
    url = urlunsplit(parts._replace(netloc=f"api:wrong@{parts.hostname}:{parts.port}"))
    connection = ScriptConnection(url, client_name="test")
    with pytest.raises(RedisRefused) as refused:
        await ask(connection, "0" * 40, "a")
    assert refused.value.fields == {"reason": "WRONGPASS"}


async def test_the_api_may_call_scripts_but_not_load_them(stores: RealStores, redis: Redis) -> None:
    await load_scripts(redis, INCARNATION)
    client = open_redis(stores.redis_api_url, client_name="test")
    for script in (read_script("orders/place_orders"), read_script("inventory/top_up")):
        with pytest.raises(RedisRefused) as refused:
            await call_once(
                client, "SCRIPT", "LOAD", script.bind(INCARNATION).text, timeout_ms=LONG_MS
            )
        assert refused.value.fields == {"reason": "NOPERM"}
    await client.aclose()


@contextlib.asynccontextmanager
async def a_server_that(
    does: Callable[[asyncio.StreamWriter], None], folder: Path
) -> AsyncIterator[str]:
    """Listen like Redis, take CLIENT SETNAME, and do something else with the command."""

    over: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.Event()
        over.append(ended)
        while b"CLIENT" in await reader.read(4096):
            writer.write(OK)
        does(writer)
        await reader.read()  # until the client goes away
        writer.close()
        ended.set()

    path = folder / "s"
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield f"unix://{path}"
        for connection_ended in over:
            await asyncio.wait_for(connection_ended.wait(), LONG_MS / 1000)


async def test_a_reply_that_is_lost_is_unknown(tmp_path: Path) -> None:
    async with a_server_that(asyncio.StreamWriter.close, tmp_path) as url:
        connection = ScriptConnection(url, client_name="test")
        with pytest.raises(OutcomeUnknown):
            await ask(connection, "0" * 40, "a")
        client = open_redis(url, client_name="test")
        with pytest.raises(OutcomeUnknown):
            await call_once(client, "SET", "a", "b", timeout_ms=LONG_MS)
        await client.aclose()


async def test_a_reply_that_is_no_reply_is_unknown(tmp_path: Path) -> None:
    def babble(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with a_server_that(babble, tmp_path) as url:
        connection = ScriptConnection(url, client_name="test")
        with pytest.raises(OutcomeUnknown):
            await ask(connection, "0" * 40, "a")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"-LOADING Valkey is loading the dataset in memory\r\n", RedisRefused),
        (b"-BUSY Valkey is busy running a script.\r\n", RedisRefused),
        (b"-MISCONF Errors writing to the AOF file: No space left on device\r\n", RedisRefused),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", RedisRefused),
        (b"-READONLY You can't write against a read only replica.\r\n", RedisRefused),
        (b"-NOSCRIPT No matching script. Please use EVAL.\r\n", ScriptMissing),
    ],
)
async def test_what_the_server_says_instead(
    tmp_path: Path, said: bytes, error: type[Exception]
) -> None:
    async with a_server_that(lambda writer: writer.write(said), tmp_path) as url:
        connection = ScriptConnection(url, client_name="test")
        with pytest.raises(error):
            await ask(connection, "0" * 40, "a")
        await connection.close()


async def test_a_repeat_after_an_unknown_outcome_is_safe(bucket: BucketOnValkey) -> None:
    assert await bucket.place(an_order()) == [Placed(0)]
    (answer,) = await bucket.place(an_order())
    assert isinstance(answer, Replay)


async def test_scripts_that_were_flushed_stay_missing(bucket: BucketOnValkey) -> None:
    await bucket.redis.script_flush()
    with pytest.raises(ScriptMissing):
        await bucket.place(an_order())
    with pytest.raises(ScriptMissing):
        await read_bucket(bucket.redis, bucket.keys)
    script = bind_script("inventory/read_bucket")
    assert not any(await bucket.redis.script_exists(script.sha))
    loaded = await load_scripts(bucket.redis, INCARNATION)
    assert loaded["inventory/read_bucket"] == script.sha
    await call_script(bucket.redis, script, bucket.keys)
