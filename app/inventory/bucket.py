"""
A bucket in Redis: the answers of its scripts, and one thin caller for each.

Nothing is decided here. The coordinator opens, renews and fences; the mover applies moves; who
wants to know how a bucket stands reads it. Every call names the keys of one epoch, and those that
change stock also the incarnation of the server on which that epoch was opened.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple, Self

from redis.asyncio import Redis

from app.kernel.errors import BrokenState
from app.storage.keys import BucketKeys
from app.storage.lua import bind_script, call_script
from app.storage.redis import RedisArgument


class Gate(StrEnum):
    """What the sale row wants of a bucket; SHUT until its first renewal."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"
    SHUT = "shut"


class RenewCode(IntEnum):
    """What renew_lease answers, in the order in which it checks."""

    NOT_READY = -1
    FENCED = -2
    OTHER_SERVER = -3
    LATE = -4
    TOO_FAR = -5
    ALREADY = 1
    RENEWED = 0


class FenceCode(IntEnum):
    """What fence_bucket answers, in the order in which it checks."""

    NOT_READY = -1
    ALREADY = 1
    FENCED = 0


class MoveCode(IntEnum):
    """What return_units, top_up and withdraw_units answer, in the order in which they check."""

    NOT_READY = -1
    ALREADY = 1
    DONE = 0


class ReadCode(IntEnum):
    """What read_bucket answers."""

    NOT_READY = -1
    READ = 0


class RenewAnswer(NamedTuple):
    """A renewal, and the server's clock from which the next deadline is reckoned."""

    code: RenewCode
    now_ms: int


class FenceAnswer(NamedTuple):
    """A fence, and what it closed; -1 where the state does not say."""

    code: FenceCode
    last_entry_id: str  # nothing is added to the stream above it
    remaining: int
    orders_placed: int


class MoveAnswer(NamedTuple):
    """A move: the units then remaining, or for a withdrawal the units taken."""

    code: MoveCode
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketState:
    """The hash `state`, field by field."""

    remaining: int
    limit: int
    opens_at_ms: int
    closes_at_ms: int
    gate: Gate
    fenced: int  # 0 or 1
    lease_until_ms: int
    incarnation: str  # 16 hex digits
    orders_placed: int
    units_placed: int
    units_returned: int
    orders_flushed: int
    backlog_max: int
    group_size: int = 0  # of a group sale; 0 in others
    group_window_ms: int = 0

    def to_fields(self) -> dict[str, str | int]:
        """Give the fields as one HSET writes them."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: dict[str, str]) -> Self:
        """
        Read what HGETALL gave.

        Raises:
            BrokenState: a field is missing, unknown or not of its type.
        """
        try:
            texts = {"gate": Gate(fields["gate"]), "incarnation": fields["incarnation"]}
            numbers = {name: int(fields[name]) for name in fields.keys() - texts.keys()}
            return cls(**texts, **numbers)  # type: ignore[arg-type]  # named by the fields
        except (KeyError, ValueError, TypeError) as exc:
            raise BrokenState(state=sorted(fields)) from exc


class BucketReading(NamedTuple):
    """How a bucket stood at one instant."""

    now_ms: int
    state: BucketState | None  # None when the epoch has no state here
    entries: int
    first_entry_id: str  # "" when the stream is empty
    last_entry_id: str  # the last ever given out, "0-0" before the first

    @property
    def oldest_age_ms(self) -> int:
        """How long the oldest unflushed order has waited, by the server's clock; 0 if none."""
        if not self.first_entry_id:
            return 0
        return max(0, self.now_ms - int(self.first_entry_id.partition("-")[0]))


REMEMBERED_BYTES: Final = 18
REMEMBERED_FINGERPRINT_BYTES: Final = 5


class RememberedOrder(NamedTuple):
    """What `replays` holds for a key: the order it has made."""

    epoch: int
    seq: int
    placed_at_ms: int
    fingerprint: bytes  # 8 bytes, of which Redis remembers the first 5

    @property
    def stamp(self) -> bytes:
        """7 bytes that name the order within its bucket."""
        return self.epoch.to_bytes(2, "big") + self.seq.to_bytes(5, "big")

    def pack(self) -> bytes:
        """Give the 18 bytes of the hash's value: of the fingerprint only the first five."""
        placed_at = self.placed_at_ms.to_bytes(6, "big")
        return self.stamp + placed_at + self.fingerprint[:REMEMBERED_FINGERPRINT_BYTES]

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Read the 18 bytes of the hash's value; the fingerprint has five bytes then."""
        assert len(packed) == REMEMBERED_BYTES
        epoch, seq, placed_at_ms = packed[:2], packed[2:7], packed[7:13]
        return cls(
            int.from_bytes(epoch, "big"),
            int.from_bytes(seq, "big"),
            int.from_bytes(placed_at_ms, "big"),
            packed[13:],
        )


class ForgottenKey(NamedTuple):
    """The key of a dead letter: forgotten, or handed to the order that owns it."""

    key_hash: bytes
    order: RememberedOrder  # the dead one; the key is touched only while it stands for it
    owner: RememberedOrder | None = None


async def renew_lease(  # noqa: PLR0913  each is one fact of the lease row
    redis: Redis,
    keys: BucketKeys,
    *,
    incarnation: str,
    run_id: str,
    master_replid: str,
    lease_until_ms: int,
    gate: Gate | None,
) -> RenewAnswer:
    """
    Let a bucket sell until an absolute time of its server, and set its gate.

    Args:
        redis: the server itself, not one behind a balancer.
        keys: of the open epoch.
        incarnation: 16 hex digits, of the lease row.
        run_id: of the lease row.
        master_replid: of the lease row.
        lease_until_ms: the server's now_ms of the previous reply, plus 4 s.
        gate: OPEN, PAUSED or CLOSED; None leaves it as it is.
    """
    assert gate is not Gate.SHUT, "SHUT is how an epoch begins"
    script = bind_script("inventory/renew_lease", incarnation)
    reply = await call_script(
        redis, script, keys, [run_id, master_replid, lease_until_ms, gate.value if gate else ""]
    )
    return RenewAnswer(RenewCode(reply[0]), reply[1])


async def fence_bucket(redis: Redis, keys: BucketKeys) -> FenceAnswer:
    """Stop an epoch for good; repeating it tells the same numbers."""
    reply = await call_script(redis, bind_script("inventory/fence_bucket"), keys)
    code, last_entry_id, remaining, orders_placed = reply
    return FenceAnswer(FenceCode(code), last_entry_id.decode(), remaining, orders_placed)


async def read_bucket(redis: Redis, keys: BucketKeys) -> BucketReading:
    """
    Tell how a bucket stands, state and stream in one picture.

    Raises:
        BrokenState: the state lacks a field, or holds one that is not of its type.
    """
    reply = await call_script(redis, bind_script("inventory/read_bucket"), keys)
    code, now_ms, flat, entries, first_entry_id, last_entry_id = reply
    state = None
    if ReadCode(code) is ReadCode.READ:
        texts = [text.decode() for text in flat]
        state = BucketState.from_fields(dict(zip(texts[::2], texts[1::2], strict=True)))
    return BucketReading(now_ms, state, entries, first_entry_id.decode(), last_entry_id.decode())


async def top_up(
    redis: Redis, keys: BucketKeys, *, incarnation: str, move_id: str, units: int
) -> MoveAnswer:
    """Give a bucket granted units, once for each move; answers the units remaining."""
    script = bind_script("inventory/top_up", incarnation)
    return _move_answer(await call_script(redis, script, keys, [move_id, units]))


async def withdraw_units(
    redis: Redis, keys: BucketKeys, *, incarnation: str, move_id: str, units_wanted: int
) -> MoveAnswer:
    """Take unsold units out of a bucket, once for each move; answers the units taken."""
    script = bind_script("inventory/withdraw_units", incarnation)
    return _move_answer(await call_script(redis, script, keys, [move_id, units_wanted]))


async def return_units(  # noqa: PLR0913  each is one column of the move
    redis: Redis,
    keys: BucketKeys,
    *,
    incarnation: str,
    move_id: str,
    shopper: str,
    units: int,
    forgotten: ForgottenKey | None = None,
) -> MoveAnswer:
    """
    Give an order's units back to its bucket, once for each move.

    Args:
        redis: the server that holds the bucket.
        keys: of the move's epoch, not of the order's.
        incarnation: 16 hex digits, of the lease row.
        move_id: of the row in bucket_moves.
        shopper: who held the units.
        units: 1..limit.
        forgotten: only for a dead letter; a closed order's key stays remembered.

    Returns:
        The units remaining.

    Raises:
        BrokenState: the shopper does not hold as many; nothing was written.
    """
    script = bind_script("inventory/return_units", incarnation)
    arguments: list[RedisArgument] = [move_id, shopper, units, *forgotten_arguments(forgotten)]
    return _move_answer(await call_script(redis, script, keys, arguments))


def forgotten_arguments(forgotten: ForgottenKey | None) -> tuple[bytes, bytes, bytes]:
    """Spell key hash, order stamp and owner as the return scripts want them."""
    if forgotten is None:
        return b"", b"", b""
    owner = b"" if forgotten.owner is None else forgotten.owner.pack()
    return forgotten.key_hash, forgotten.order.stamp, owner


def _move_answer(reply: Sequence[int]) -> MoveAnswer:
    return MoveAnswer(MoveCode(reply[0]), reply[1])
