"""
What the script place_orders can answer to one order. Pure.

Every answer is a value: "sold out" is the commonest answer of a flash sale, not an exception.
The codes and their order are those of lua/orders/place_orders.lua; a test compares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from app.kernel.errors import BrokenState


class PlaceCode(IntEnum):
    """The codes, in the order in which the script checks them."""

    STALE = -5
    REPLAY = 1
    KEY_MISMATCH = -1
    NOT_OPEN = -2
    ENDED = -3
    PAUSED = -4
    GROUP_NOT_FOUND = -9
    GROUP_FULL = -10
    GROUP_EXPIRED = -11
    IN_ANOTHER_GROUP = -12
    OVER_LIMIT = -7
    SOLD_OUT = -8
    BACKLOG_FULL = -6
    PLACED = 0


class Placed(NamedTuple):
    """Stock is held, the order is in the stream."""

    seq: int


@dataclass(frozen=True, slots=True)
class Replay:
    """The key has made an order before; its epoch may be an older one."""

    seq: int
    epoch: int
    placed_at_ms: int


@dataclass(frozen=True, slots=True)
class OverLimit:
    """The shopper may not take as many."""

    units_allowed: int


@dataclass(frozen=True, slots=True)
class SoldOut:
    """Fewer units are left than were asked for."""

    units_left: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Every other refusal: the code says it all."""

    code: PlaceCode


Answer = Placed | Replay | OverLimit | SoldOut | Refused

# Bare numbers: a member of an enumeration costs a look-up in its class each time.
_PLACED: Final = int(PlaceCode.PLACED)
_SOLD_OUT: Final = int(PlaceCode.SOLD_OUT)
_REPLAY: Final = int(PlaceCode.REPLAY)
_OVER_LIMIT: Final = int(PlaceCode.OVER_LIMIT)

_sold_out = lru_cache(maxsize=64)(SoldOut)  # nearly all of a rush's are alike
_REFUSALS: Final = {
    int(code): Refused(code)
    for code in PlaceCode
    if code not in {PlaceCode.PLACED, PlaceCode.REPLAY, PlaceCode.OVER_LIMIT, PlaceCode.SOLD_OUT}
}


@dataclass(frozen=True, slots=True)
class PlaceReply:
    """What one call of the script said."""

    now_ms: int  # the server's clock; placed_at_ms of every order it placed
    entry_id: bytes  # b"" when the whole batch was refused
    answers: tuple[Answer, ...]  # one per order, in the order of the batch


def read_answer(raw: Sequence[int]) -> Answer:
    """
    Read one {code, detail...} of the reply.

    Raises:
        BrokenState: a code that no version of the script gives.
    """
    code = raw[0]
    if code == _PLACED:
        return Placed(raw[1])
    if code == _SOLD_OUT:
        return _sold_out(raw[1])
    if code == _REPLAY:
        return Replay(raw[1], raw[2], raw[3])
    if code == _OVER_LIMIT:
        return OverLimit(raw[1])
    refusal = _REFUSALS.get(code)
    if refusal is None:
        raise BrokenState(place_orders_code=code)
    return refusal
