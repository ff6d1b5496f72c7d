"""
Write the keys of a new epoch, and read them back.

`state` comes last, in one HSET: until then every move and every sale finds
nothing there. No key of the epoch may exist before; if one does, another
process was here, and the next epoch is taken instead (docs/HOT_PATH.md §2, §7).
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeVar

from redis.asyncio import Redis

from app.inventory.bucket import BucketState, Gate
from app.inventory.lease_store import Rebuild
from app.kernel.clock import unix_ms
from app.kernel.errors import BucketRecovering
from app.kernel.failpoints import failpoint
from app.storage.keys import BucketKeys
from app.storage.redis import redis_errors

_FIELDS_MAX: Final = 1_000  # of one HSET: keeps the server's turn short

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
        remembered = ((key_hash, order.pack()) for key_hash, order in rebuild.replays)
        await _write_hash(redis, keys.replays, remembered, expire_at_ms)
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
    for chunk in _chunks(fields, _FIELDS_MAX):
        pipeline = redis.pipeline(transaction=True)
        pipeline.hset(key, mapping=dict(chunk))
        pipeline.pexpireat(key, expire_at_ms)
        await pipeline.execute()


async def _read_back(redis: Redis, keys: BucketKeys, rebuild: Rebuild) -> None:
    """Compare counts and content: a lost or doubled chunk must not start selling."""
    units = [int(units) async for _, units in redis.hscan_iter(keys.shoppers, count=_FIELDS_MAX)]
    if len(units) != len(rebuild.holdings) or sum(units) != rebuild.lease.reserved:
        raise BucketRecovering(epoch=keys.epoch, why="shoppers read back otherwise")
    remembered = {key_hash: order.pack() for key_hash, order in rebuild.replays}
    await _compare(redis, keys, "replays", remembered)
    groups = {group.encode(): entry.pack() for group, entry in rebuild.groups.items()}
    await _compare(redis, keys, "groups", groups)
    members = {shopper.encode(): group.encode() for shopper, group in rebuild.members.items()}
    await _compare(redis, keys, "members", members)


async def _compare(
    redis: Redis, keys: BucketKeys, name: str, written: Mapping[bytes, bytes]
) -> None:
    found = 0
    async for field, value in redis.hscan_iter(keys.named(name), count=_FIELDS_MAX):
        found += 1
        if written.get(field) != value:
            raise BucketRecovering(epoch=keys.epoch, why=f"{name} read back otherwise")
    if found != len(written):
        raise BucketRecovering(epoch=keys.epoch, why=f"{name} read back otherwise")


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
