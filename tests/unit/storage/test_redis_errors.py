"""What the driver raises, and what we raise for it."""

import pytest
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.kernel.errors import (
    BrokenState,
    OutcomeUnknown,
    RedisRefused,
    RedisUnavailable,
    ScriptMissing,
)
from app.storage.redis import redis_errors

REPLIES = """
  NOSCRIPT No matching script.                            -> ScriptMissing
  READONLY You can't write against a read only replica.   -> RedisRefused
  MASTERDOWN Link with MASTER is down                     -> RedisRefused
  CLUSTERDOWN Hash slot not served                        -> RedisRefused
  LOADING Valkey is loading the dataset in memory         -> RedisRefused
  MISCONF Errors writing to the AOF file                  -> RedisRefused
  OOM command not allowed when used memory > 'maxmemory'. -> RedisRefused
  NOREPLICAS Not enough good replicas to write.           -> RedisRefused
  BUSY Valkey is busy running a script.                   -> RedisRefused
  WRONGPASS invalid username-password pair                -> RedisRefused
  NOAUTH Authentication required.                         -> RedisRefused
  NOPERM User api has no permissions                      -> RedisRefused
  MOVED 3999 127.0.0.1:6381                               -> RedisRefused
  TRYAGAIN Multiple keys request during rehashing of slot -> RedisRefused
  ERR max number of clients reached                       -> RedisRefused
  ERR user_script:12: bad quantity                        -> BrokenState
  WRONGTYPE Operation against a key of another kind       -> BrokenState
  CROSSSLOT Keys in request don't hash to the same slot   -> BrokenState
"""

OURS = {error.__name__: error for error in (ScriptMissing, RedisRefused, BrokenState)}


@pytest.mark.parametrize(
    ("reply", "error"),
    [[cell.strip() for cell in line.split("->")] for line in REPLIES.strip().splitlines()],
)
@pytest.mark.parametrize("writes", [True, False])
def test_an_answer_of_the_server(reply: str, error: str, *, writes: bool) -> None:
    with pytest.raises(OURS[error]) as raised, redis_errors(writes=writes):
        raise BaseParser.parse_error(reply)
    assert type(raised.value) is OURS[error]


@pytest.mark.parametrize(
    "silence",
    [
        RedisConnectionError("Connection closed by server."),
        RedisTimeoutError("Timeout reading from socket"),
        TimeoutError(),
        ConnectionResetError(),
        InvalidResponse("Protocol error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_answer_is_unknown_only_for_what_may_write(silence: Exception) -> None:
    with pytest.raises(OutcomeUnknown), redis_errors():
        raise silence
    with pytest.raises(RedisUnavailable) as raised, redis_errors(writes=False):
        raise silence
    assert type(raised.value) is RedisUnavailable
    assert raised.value.__cause__ is silence


def test_a_bug_passes_through() -> None:
    with pytest.raises(AssertionError), redis_errors():
        raise AssertionError
