"""
Write the keys of a new epoch, and read them back.

`state` comes last, in one HSET: until then every move and every sale finds
nothing there. No key of the epoch may exist before; if one does, another
process was here, and the next epoch is taken instead (docs/HOT_PATH.md §2, §7).
"""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from app.inventory.bucket import BucketState, Gate
from app.inventory.lease_store import Rebuild
from app.kernel.clock import unix_ms
from app.kernel.errors import BucketRecovering
from app.kernel.failpoints import failpoint
from app.storage.keys import BucketKeys
from app.storage.redis import redis_errors

_FIELDS_MAX: Final = 1_000  # of one HSET: keeps the server's turn short
_CHUNKS_AT_ONCE_MAX: Final = 4  # of a hash: the coordinator needs connections for renewals
_SCANNED_MAX: Final = 2_000  # fields of one HSCAN, likewise

T = TypeVar("T")


async def write_epoch(
    redis: Redis,
    keys: BucketKeys,
    rebuild: Rebuild,
    *,
    incarnation: str,
    backlog_max: int,
) -> None:
    """
    Write what a new epoch begins with; its gate stays shut and its lease lapsed.

    Raises:
        BucketRecovering: a key of this epoch exists, or reading back tells
            something else than was written; take the next epoch.
        RedisUnavailable, OutcomeUnknown: as for the above.
    """
    expire_at_ms = unix_ms(rebuild.lease.keys_expire_at)
    with redis_errors():
        if await redis.exists(*keys.all):
            raise BucketRecovering(epoch=keys.epoch, why="somebody has begun to write it")
        await _write_hash(redis, keys.shoppers, rebuild.holdings.items(), expire_at_ms)
        await _write_hash(redis, keys.replays, rebuild.replays.items(), expire_at_ms)
        entries = ((group, entry.pack()) for group, entry in rebuild.groups.items())
        await _write_hash(redis, keys.groups, entries, expire_at_ms)
        await _write_hash(redis, keys.members, rebuild.members.items(), expire_at_ms)
        failpoint("recovery.after_hashes")
        await _read_back(redis, keys, rebuild)
        state = _first_state(rebuild, incarnation, backlog_max).to_fields()
        pipeline = redis.pipeline(transaction=True)
        pipeline.hset(keys.state, mapping=dict(state.items()))
        pipeline.pexpireat(keys.state, expire_at_ms)
        await pipeline.execute()


async def forget_epochs(redis: Redis, keys: Iterable[BucketKeys]) -> None:
    """Free the keys of epochs that nobody may touch any more."""
    with redis_errors():
        for old in keys:
            await redis.unlink(*old.all)


def _first_state(rebuild: Rebuild, incarnation: str, backlog_max: int) -> BucketState:
    lease = rebuild.lease
    return BucketState(
        remaining=lease.granted - lease.reserved,
        limit=lease.limit_per_shopper,
        opens_at_ms=unix_ms(lease.opens_at),
        closes_at_ms=unix_ms(lease.closes_at),
        gate=Gate.SHUT,
        fenced=0,
        lease_until_ms=0,
        incarnation=incarnation,
        orders_placed=0,
        units_placed=0,
        units_returned=0,
        orders_flushed=0,
        backlog_max=backlog_max,
        group_size=lease.group.size if lease.group else 0,
        group_window_ms=lease.group.window_seconds * 1_000 if lease.group else 0,
    )


async def _write_hash(
    redis: Redis,
    key: bytes,
    fields: Iterable[tuple[str | bytes, int | str | bytes]],
    expire_at_ms: int,
) -> None:
    async def write(chunk: list[tuple[str | bytes, int | str | bytes]]) -> None:
        pipeline = redis.pipeline(transaction=True)
        pipeline.hset(key, mapping=dict(chunk))
        pipeline.pexpireat(key, expire_at_ms)
        await pipeline.execute()

    # Side by side they share fsyncs; each is a short turn of the server all the same.
    for few in _chunks(_chunks(fields, _FIELDS_MAX), _CHUNKS_AT_ONCE_MAX):
        await asyncio.gather(*map(write, few))


async def _read_back(redis: Redis, keys: BucketKeys, rebuild: Rebuild) -> None:
    """Compare all content: a lost or doubled chunk must not start selling."""
    if sum(rebuild.holdings.values()) != rebuild.lease.reserved:
        raise BucketRecovering(epoch=keys.epoch, why="shoppers hold otherwise than the lease says")
    holdings = {shopper.encode(): b"%d" % units for shopper, units in rebuild.holdings.items()}
    await _compare(redis, keys, "shoppers", holdings)
    await _compare(redis, keys, "replays", rebuild.replays)
    groups = {group.encode(): entry.pack() for group, entry in rebuild.groups.items()}
    await _compare(redis, keys, "groups", groups)
    members = {shopper.encode(): group.encode() for shopper, group in rebuild.members.items()}
    await _compare(redis, keys, "members", members)


async def _compare(
    redis: Redis, keys: BucketKeys, name: str, written: Mapping[bytes, bytes]
) -> None:
    """HSCAN may tell a field twice, while the server still spreads the hash out."""
    found: dict[bytes, bytes] = {}
    cursor = None
    while cursor != 0:
        reply: Any = await redis.hscan(keys.named(name), cursor or 0, count=_SCANNED_MAX)
        cursor, page = reply
        found.update(page)
    if found != written:
        raise BucketRecovering(epoch=keys.epoch, why=f"{name} read back otherwise")


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
