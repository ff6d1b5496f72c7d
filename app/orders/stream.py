"""
The order stream: what goes into the script, what it appends, and how the flusher reads it.

Both shapes are msgpack arrays with a version first; positions are documented here and nowhere
else. Hashes are raw bytes, and the Lua inside the server does not know msgpack's `bin` type, so
everything is packed as its old raw strings.

    batch  [1, [order, ...]]                                       to place_orders
    entry  [1, orders_placed_before, placed_at_ms, [order, ...]]   from place_orders, field `b`
    order  [key_hash, fingerprint, shopper, quantity, reference, group]

The seq of the i-th order of an entry is orders_placed_before + i.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple, Self

import msgpack  # type: ignore[import-untyped]  # it ships none
from redis.asyncio import Redis

from app.kernel.errors import UnreadableEntry
from app.orders.answers import PlaceReply, read_answer
from app.storage.keys import BucketKeys
from app.storage.lua import BoundScript, bind_script, call_script
from app.storage.redis import redis_errors
from app.storage.script_connection import ScriptConnection

# What sells: the coordinator notes the SHA of this script in the lease row.
PLACE_ORDERS: Final = "orders/place_orders"

FORMAT_VERSION: Final = 1
BATCH_ORDERS_MAX: Final = 1_024  # of place_orders; twice that many arguments fit Lua's stack
QUANTITY_MAX: Final = 1_000_000
KEY_HASH_BYTES: Final = 16
FINGERPRINT_BYTES: Final = 8
LISTEN_SECONDS: Final = 0.1  # between looks whether more channels are wanted

_COUNT_MAX: Final = 2**53  # whole numbers a Lua number holds exactly
_INSTANT_MS_MAX: Final = 2**47  # in the year 6429: every calendar here still holds it


class TrimCode(IntEnum):
    """What trim_stream answers, in the order in which it checks."""

    NOT_READY = -1
    TRIMMED = 0


class PlacementRequest(NamedTuple):
    """One order as it is sent to the script and as the stream keeps it."""

    key_hash: bytes  # the first 16 bytes of SHA-256(shopper, idempotency key)
    fingerprint: bytes  # 8 bytes: the same key with other bytes here is a mismatch
    shopper: str
    quantity: int
    reference: str = ""
    group: str = ""


class EntryId(NamedTuple):
    """The place of an entry in a stream: the server's Unix ms, and a count within it."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """
        Read "<ms>-<seq>".

        Raises:
            UnreadableEntry: it is not of that form.
        """
        ms, dash, seq = (text.decode("latin-1") if isinstance(text, bytes) else text).partition("-")
        if not (dash and ms.isdecimal() and seq.isdecimal() and ms.isascii() and seq.isascii()):
            raise UnreadableEntry(entry_id=text)
        return cls(int(ms), int(seq))

    def next(self) -> "EntryId":
        """Give the smallest id above this one."""
        return EntryId(self.ms, self.seq + 1)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


STREAM_START: Final = EntryId(0, 0)


class RawEntry(NamedTuple):
    """An entry as the server gave it; an unreadable one is parked with these bytes."""

    entry_id: EntryId
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One accepted batch."""

    entry_id: EntryId
    orders_placed_before: int
    placed_at_ms: int
    orders: tuple[PlacementRequest, ...]  # 1..BATCH_ORDERS_MAX


def encode_batch(orders: Sequence[PlacementRequest]) -> bytes:
    """Pack 1..BATCH_ORDERS_MAX orders for place_orders."""
    assert 1 <= len(orders) <= BATCH_ORDERS_MAX
    packed: bytes = msgpack.packb((FORMAT_VERSION, orders), use_bin_type=False)
    return packed


def decode_entry(entry_id: EntryId, fields: Mapping[bytes, bytes]) -> StreamEntry:
    """
    Read one entry of the stream.

    Raises:
        UnreadableEntry: no version of this service has written these bytes.
    """
    try:
        version, before, placed_at_ms, raw_orders = msgpack.unpackb(
            fields[b"b"], raw=True, use_list=False
        )
        _whole(version, FORMAT_VERSION, FORMAT_VERSION)
        _require(type(raw_orders) is tuple)
        _require(1 <= len(raw_orders) <= BATCH_ORDERS_MAX)
        return StreamEntry(
            entry_id=entry_id,
            orders_placed_before=_whole(before, 0, _COUNT_MAX),
            placed_at_ms=_whole(placed_at_ms, 1, _INSTANT_MS_MAX),
            orders=_decode_orders(raw_orders),
        )
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as exc:
        raise UnreadableEntry(entry_id=str(entry_id), reason=type(exc).__name__) from exc


async def read_entries(
    redis: Redis,
    after: Mapping[bytes, EntryId],
    *,
    count: int,
    block_ms: int | None = None,
) -> dict[bytes, list[RawEntry]]:
    """
    Read what follows the given positions in one or many streams.

    Args:
        redis: a client whose call timeout is longer than block_ms.
        after: stream key -> the last entry already read; 1..n, in one cluster slot.
        count: most entries of each stream.
        block_ms: how long to wait when there is none; None answers at once.

    Returns:
        Stream key -> entries, oldest first; streams without new ones are left out.

    Raises:
        RedisUnavailable: no answer; reading again is harmless.
    """
    positions: Any = {key: str(entry_id) for key, entry_id in after.items()}
    with redis_errors(writes=False):
        reply: Any = await redis.xread(positions, count=count, block=block_ms)
    return {
        key: [RawEntry(EntryId.parse(entry_id), fields) for entry_id, fields in entries]
        for key, entries in reply
    }


def place_orders_script(incarnation: str) -> BoundScript:
    """Give place_orders as one incarnation of the server knows it."""
    return bind_script(PLACE_ORDERS, incarnation)


async def place_orders(
    connection: ScriptConnection,
    script: BoundScript,
    names: Sequence[bytes],
    orders: Sequence[PlacementRequest],
    *,
    timeout_ms: int,
) -> PlaceReply:
    """
    Place one batch in one bucket.

    Args:
        connection: free, to the server that holds the bucket.
        script: place_orders_script of the lease row's incarnation.
        names: `keys.in_order(script.key_names)`, worked out once per bucket and epoch.
        orders: 1..BATCH_ORDERS_MAX.
        timeout_ms: for the whole call.

    Raises:
        ScriptMissing, RedisRefused, RedisUnavailable: nothing was placed.
        OutcomeUnknown: no answer in time; repeating with the same keys is safe.
        BrokenState: the script failed: stop this bucket.
    """
    reply = await connection.evalsha(
        script.sha, names, [encode_batch(orders)], timeout_ms=timeout_ms
    )
    now_ms, entry_id, answers = reply
    return PlaceReply(now_ms, entry_id, tuple(map(read_answer, answers)))


async def trim_stream(
    redis: Redis, keys: BucketKeys, flushed_up_to: EntryId, orders_flushed: int
) -> bool:
    """
    Forget the entries that Postgres has, and lower the backlog.

    Repeating is harmless, and an older call never undoes a newer one.

    Args:
        redis: the server that holds the bucket.
        keys: of the epoch that was flushed.
        flushed_up_to: the committed stream offset; STREAM_START trims nothing.
        orders_flushed: `orders_seen` as committed with that offset.

    Returns:
        False if the epoch's state is gone, so that nothing was done.
    """
    reply = await call_script(
        redis,
        bind_script("orders/trim_stream"),
        keys,
        [str(flushed_up_to.next()), orders_flushed],
    )
    return TrimCode(reply[0]) is TrimCode.TRIMMED


def _require(condition: bool) -> None:  # noqa: FBT001  it reads like the assertion it is
    if not condition:
        raise ValueError


def _whole(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError
    return value


def _decode_orders(raw_orders: Sequence[Sequence[Any]]) -> tuple[PlacementRequest, ...]:
    """Check and name the six fields of every order, a column at a time."""
    key_hashes, fingerprints, shoppers, quantities, references, groups = zip(
        *raw_orders, strict=True
    )
    for column in (key_hashes, fingerprints, shoppers, references, groups):
        _require(set(map(type, column)) == {bytes})
    _require(set(map(len, key_hashes)) == {KEY_HASH_BYTES})
    _require(set(map(len, fingerprints)) == {FINGERPRINT_BYTES})
    _require(b"" not in shoppers)
    _require(set(map(type, quantities)) == {int})
    _require(min(quantities) >= 1 and max(quantities) <= QUANTITY_MAX)
    names, notes, teams = (map(bytes.decode, column) for column in (shoppers, references, groups))
    return tuple(map(PlacementRequest, key_hashes, fingerprints, names, quantities, notes, teams))


async def listen(
    redis: Redis, channels: Sequence[bytes], changed: asyncio.Event
) -> AsyncIterator[tuple[bytes, bytes]]:
    """
    Yield (channel, message) of the given channels until `changed` is set.

    An empty message says that the channel is heard from now on; what was said
    before was missed.

    Raises:
        RedisUnavailable: the connection is gone; messages meanwhile are lost.
    """
    pubsub = redis.pubsub()
    try:
        with redis_errors(writes=False):
            await pubsub.subscribe(*channels)
            while not changed.is_set():
                message: Any = await pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is None:
                    continue
                if message["type"] == "message":
                    yield message["channel"], message["data"]
                elif message["type"] == "subscribe":
                    yield message["channel"], b""
    finally:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
