"""A bucket's keys on a real server, and the few acts that tests of scripts repeat."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from app.inventory.bucket import BucketState, Gate, RememberedOrder
from app.orders.answers import Answer, OverLimit, Placed, Refused, Replay, SoldOut
from app.orders.stream import (
    EntryId,
    PlacementRequest,
    StreamEntry,
    decode_entry,
    place_orders,
    place_orders_script,
)
from app.storage.keys import BucketKeys
from app.storage.script_connection import ScriptConnection

INCARNATION: Final = "0123456789abcdef"
EPOCH: Final = 7
HOUR_MS: Final = 3_600_000
CALL_TIMEOUT_MS: Final = 5_000

# A lease of 4.9 s outlives every test here and is less than the 5 s that a seller believes.
LEASE_MS: Final = 4_900


class BucketOnValkey:
    """
    One epoch of one bucket.

    Attributes:
        keys: its keys, of the test's own deployment.
        names: the keys of place_orders, in its order.
    """

    def __init__(self, redis: Redis, connection: ScriptConnection, deployment: str) -> None:
        self.redis = redis
        self.keys = BucketKeys(deployment, sale=1, bucket=0, epoch=EPOCH)
        self.script = place_orders_script(INCARNATION)
        self.names = self.keys.in_order(self.script.key_names)
        self._connection = connection

    async def open(self) -> None:
        """Write the state of a bucket of 10 units, limit 2, with the expiry of an hour."""
        now_ms = await self.now_ms()
        state = BucketState(
            remaining=10,
            limit=2,
            opens_at_ms=now_ms - HOUR_MS,
            closes_at_ms=now_ms + HOUR_MS,
            gate=Gate.OPEN,
            fenced=0,
            lease_until_ms=now_ms + LEASE_MS,
            incarnation=INCARNATION,
            orders_placed=0,
            units_placed=0,
            units_returned=0,
            orders_flushed=0,
            backlog_max=1_000,
        )
        await self.redis.hset(self.keys.state, mapping=state.to_fields())
        await self.redis.pexpireat(self.keys.state, now_ms + HOUR_MS)

    async def change(self, **fields: str | int) -> None:
        """Write fields of the state by hand."""
        await self.redis.hset(self.keys.state, mapping=fields)

    async def place(self, *orders: PlacementRequest) -> list[Answer]:
        """Place one batch and give its answers."""
        reply = await place_orders(
            self._connection, self.script, self.names, orders, timeout_ms=CALL_TIMEOUT_MS
        )
        return list(reply.answers)

    async def now_ms(self) -> int:
        seconds, microseconds = await self.redis.time()
        return seconds * 1000 + microseconds // 1000

    async def state(self) -> BucketState:
        fields = await self.redis.hgetall(self.keys.state)
        return BucketState.from_fields({k.decode(): v.decode() for k, v in fields.items()})

    async def numbers(self, *names: str) -> list[int]:
        return [int(value) for value in await self.redis.hmget(self.keys.state, *names)]

    async def held(self) -> dict[str, int]:
        """Units held, by shopper."""
        fields = await self.redis.hgetall(self.keys.shoppers)
        return {shopper.decode(): int(units) for shopper, units in fields.items()}

    async def remembered(self, key: str) -> RememberedOrder | None:
        packed = await self.redis.hget(self.keys.replays, key_hash(key))
        return RememberedOrder.unpack(packed) if packed else None

    async def entries(self) -> list[StreamEntry]:
        return [
            decode_entry(EntryId.parse(entry_id), fields)
            for entry_id, fields in await self.redis.xrange(self.keys.orders)
        ]

    async def everything(self) -> list[Any]:
        """What all keys hold, to compare before and after."""
        reads = [self.redis.dump(key) for key in self.keys.all]
        return [await read for read in reads]


def key_hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()[:16]


def fingerprint(content: str) -> bytes:
    return hashlib.sha256(content.encode()).digest()[:8]


def an_order(
    key: str = "k1", shopper: str = "ann", quantity: int = 1, content: str = "a"
) -> PlacementRequest:
    return PlacementRequest(key_hash(key), fingerprint(content), shopper, quantity, "ref", "")


def orders_of_others(count: int) -> list[PlacementRequest]:
    """Orders of as many shoppers, each with a key of its own."""
    return [an_order(key=f"k{i}", shopper=f"s{i}") for i in range(count)]


def told(answer: Answer) -> tuple[str, int]:
    """An answer as the tables write it: the name of its code, and its first detail."""
    match answer:
        case Placed(seq):
            return "PLACED", seq
        case Replay(seq):
            return "REPLAY", seq
        case OverLimit(units):
            return "OVER_LIMIT", units
        case SoldOut(units):
            return "SOLD_OUT", units
        case Refused(code):
            return code.name, 0


def table(text: str) -> list[list[str]]:
    """Rows and columns of a text table; `#` begins a comment, `->` is for the eye."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [[cell for cell in line if cell != "->"] for line in lines if line]


def pairs(things: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each thing with each later one."""
    for i, first in enumerate(things):
        for second in things[i + 1 :]:
            yield first, second
