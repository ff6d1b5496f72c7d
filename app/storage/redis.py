"""
Open Redis; turn its errors into ours.

redis-py retries ten times and loads scripts by itself unless told otherwise. Here nothing is
ever repeated behind the caller's back: a repeated EVALSHA may sell twice to one click, and a
loaded script would sell from a server that has lost its state. Whoever repeats, does so knowingly
and with the same idempotency key.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from app.kernel.errors import (
    BrokenState,
    DoorbusterError,
    OutcomeUnknown,
    RedisRefused,
    RedisUnavailable,
    ScriptMissing,
)

# What the server says before it has run anything: docs/GUARANTEES.md, answers of Redis.
REFUSALS: Final = frozenset(
    {
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "WRONGPASS",
    }
)

# What the api calls: evalsha, and what place_orders calls under the caller's own rights. The
# server's users are made from it, and a test places orders as such a user.
API_COMMANDS: Final = (
    "evalsha",
    "time",
    "hmget",
    "hset",
    "xadd",
    "pttl",
    "pexpiretime",
    "pexpireat",
)

# Nothing is repeated behind anybody's back.
_PLAIN: Final[dict[str, Any]] = {
    "retry": Retry(NoBackoff(), 0),
    "retry_on_error": [],
    "retry_on_timeout": False,
    "protocol": 2,  # scripts answer in its types anyway, and it saves the HELLO
    "driver_info": None,
    "decode_responses": False,
}

RedisArgument = bytes | str | int

# What is raised around a call whose connection is gone, or that was refused. RuntimeError is
# uvloop's word for the use of a connection that the server has reset a moment before.
CONNECTION_LOST: Final = (RedisError, OSError, TimeoutError, RuntimeError)


def open_redis(
    url: str,
    *,
    client_name: str,
    connect_timeout_ms: int = 500,
    call_timeout_ms: int = 2_000,
    connections_max: int = 16,
) -> Redis:
    """
    Give a client that connects on demand and never repeats a command.

    Args:
        url: redis://, rediss:// or unix://, with user and password.
        client_name: shown by CLIENT LIST.
        connect_timeout_ms: for the connection and its handshake.
        call_timeout_ms: for one reply; must exceed the longest blocking read.
        connections_max: who wants one more waits for it, call_timeout_ms at most.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        client_name=client_name,
        socket_connect_timeout=connect_timeout_ms / 1000,
        socket_timeout=call_timeout_ms / 1000,
        max_connections=connections_max,
        timeout=call_timeout_ms / 1000,
        **_PLAIN,
    )
    return Redis.from_pool(pool)


@contextmanager
def redis_errors(*, writes: bool = True) -> Iterator[None]:
    """
    Raise our errors for the driver's, around any use of a client.

    Args:
        writes: whether the commands inside may change something; if so, a lost
            connection leaves their outcome unknown, wherever it broke.

    Raises:
        ScriptMissing, RedisRefused, RedisUnavailable: nothing was written.
        OutcomeUnknown: a command that writes was perhaps sent, and no answer came.
        BrokenState: the server answered with an error that no sound call meets.
    """
    try:
        yield
    except CONNECTION_LOST as exc:
        raise _translated(exc, sent=writes) from exc


async def call_once(redis: Redis, *command: RedisArgument, timeout_ms: int) -> Any:  # noqa: ANN401  a reply has any shape
    """
    Send one command once over a connection of the client's pool.

    Raises:
        RedisUnavailable: it was not sent.
        OutcomeUnknown: it was sent, and no answer came within timeout_ms.
        ScriptMissing, RedisRefused, BrokenState: as the server answered.
    """
    sent = False
    pool = redis.connection_pool
    connection: AbstractConnection | None = None
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            packed = connection.pack_command(*command)
            sent = True
            await connection.send_packed_command(packed, check_health=False)
            return await connection.read_response()
    except CONNECTION_LOST as exc:
        raise _translated(exc, sent=sent) from exc
    finally:
        if connection is not None:
            await pool.release(connection)


def _translated(exc: Exception, *, sent: bool) -> DoorbusterError:
    if isinstance(exc, NoScriptError):
        return ScriptMissing()
    if isinstance(exc, ResponseError | AuthenticationError | BusyLoadingError):
        word = getattr(exc, "status_code", None) or str(exc).partition(" ")[0]
        if word in REFUSALS:
            return RedisRefused(reason=word)
        return BrokenState(reply=str(exc))
    if getattr(exc, "status_code", None):
        return RedisRefused(reason=str(exc))  # "max number of clients reached"
    if sent:
        return OutcomeUnknown(reason=str(exc) or type(exc).__name__)
    return RedisUnavailable(reason=str(exc) or type(exc).__name__)
