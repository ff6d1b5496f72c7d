"""
A bucket in Redis as it stood at one instant, for who only looks.

Read by plain commands inside MULTI, not by a script: operators and the audit look
above all when a server has lost its scripts. Nothing here writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.asyncio import Redis

from app.inventory.bucket import BucketState
from app.storage.keys import BucketKeys
from app.storage.redis import redis_errors


class Offset(NamedTuple):
    """A place in a stream: the server's Unix ms, and a count within it."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketPicture:
    """
    State, moves and both ends of the stream, all of one instant.

    Attributes:
        now_ms: the server's clock.
        state: None when the epoch has no state here.
        entries: in the stream, whether or not already flushed.
        last_entry: the last id ever given out.
        waiting: the oldest entry above the offset asked about, with its fields.
        moves: move id -> units, of the moves asked about that were applied.
    """

    now_ms: int
    state: BucketState | None
    entries: int
    last_entry: Offset
    waiting: tuple[Offset, Mapping[bytes, bytes]] | None
    moves: Mapping[int, int]

    @property
    def oldest_age_ms(self) -> int:
        """How long the oldest unflushed order has waited; 0 if none waits."""
        return max(0, self.now_ms - self.waiting[0].ms) if self.waiting else 0


async def take_picture(
    redis: Redis,
    keys: BucketKeys,
    flushed: Offset,
    move_ids: Sequence[int] = (),
) -> BucketPicture:
    """
    Look at one bucket.

    Args:
        redis: any client that may read the bucket's keys.
        keys: of the epoch to look at.
        flushed: the offset committed in Postgres.
        move_ids: rows of bucket_moves that may or may not have been applied.

    Raises:
        RedisUnavailable: no answer.
        BrokenState: the state lacks a field, or holds one that is not of its type.
    """
    with redis_errors(writes=False):
        async with redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.hgetall(keys.state)
            pipe.xrange(keys.orders, min=f"({flushed}", count=1)
            # Last, because it is an error where there is no stream yet.
            pipe.hmget(keys.moves, [str(move) for move in move_ids] or ["-"])
            pipe.xinfo_stream(keys.orders)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        time, fields, waiting, moves, stream = replies
        for reply in replies:
            if isinstance(reply, Exception) and not _is_no_stream(reply):
                raise reply
    entries, last_entry = _stream_ends(stream)
    return BucketPicture(
        now_ms=time[0] * 1000 + time[1] // 1000,
        state=_state(fields),
        entries=entries,
        last_entry=last_entry,
        waiting=(_offset(waiting[0][0]), waiting[0][1]) if waiting else None,
        moves={
            move: int(units)
            for move, units in zip(move_ids, moves, strict=False)
            if units is not None
        },
    )


async def read_remaining(redis: Redis, keys: BucketKeys) -> int | None:
    """
    Tell how many units an epoch can still sell; None if it has no state.

    Raises:
        RedisUnavailable: no answer.
    """
    with redis_errors(writes=False):
        units = await redis.hget(keys.state, "remaining")
    return None if units is None else int(units)


def _is_no_stream(reply: Exception) -> bool:
    return "no such key" in str(reply)


def _stream_ends(stream: Any) -> tuple[int, Offset]:  # noqa: ANN401  a reply or its error
    """Read XINFO STREAM; a stream that is not there is an empty one."""
    if isinstance(stream, Exception):
        return 0, Offset(0, 0)
    return stream["length"], _offset(stream["last-generated-id"])


def _state(fields: Mapping[bytes, bytes]) -> BucketState | None:
    if not fields:
        return None
    return BucketState.from_fields({name.decode(): text.decode() for name, text in fields.items()})


def _offset(text: bytes) -> Offset:
    ms, _, seq = text.decode().partition("-")
    return Offset(int(ms), int(seq))
