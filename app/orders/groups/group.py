"""
A group and the table of its life; pure.

A group is named within its bucket by the key of the order that opened it, "<epoch>.<seq>": the
script that places the order names the group by it, and a replay finds the same name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from app.kernel.ids import EPOCH_MAX, SEQ_MAX, OrderKey
from app.kernel.machine import Machine

NEW_GROUP: Final = "new"

_NAME: Final = re.compile(r"(\d{1,4})\.(\d{1,11})")


class GroupState(StrEnum):
    """The states of a group's row."""

    OPEN = "open"
    FORMED = "formed"
    FAILING = "failing"
    FAILED = "failed"
    MERGED = "merged"


class GroupEvent(StrEnum):
    """What can happen to a group."""

    SEATS_PAID = "seats_paid"  # the last of them
    GIVEN_UP = "given_up"  # its time is over, or its leader has left
    MEMBERS_ENDED = "members_ended"  # the unpaid are closing, the paid get their money back
    MERGED_AWAY = "merged_away"  # its members belong to another group


GROUP_MACHINE: Final = Machine(
    name="group",
    start=GroupState.OPEN,
    moves={
        (GroupState.OPEN, GroupEvent.SEATS_PAID): GroupState.FORMED,
        (GroupState.OPEN, GroupEvent.GIVEN_UP): GroupState.FAILING,
        (GroupState.FAILING, GroupEvent.MEMBERS_ENDED): GroupState.FAILED,
        (GroupState.OPEN, GroupEvent.MERGED_AWAY): GroupState.MERGED,
    },
)


class GroupKey(NamedTuple):
    """The primary key of a group."""

    sale: int
    bucket: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One row of `groups`, with the seats that its orders take."""

    key: GroupKey
    size: int
    seats_taken: int  # by orders that hold units
    seats_paid: int
    state: GroupState
    expires_at: datetime
    merged_into: str | None


@dataclass(frozen=True, slots=True)
class Incomplete:
    """An open group that takes nobody any more, and is not full."""

    name: str
    seats: int  # taken, paid or not; 0..size


@dataclass(frozen=True, slots=True)
class Merge:
    """Groups whose members together fill one: all go to `target`."""

    target: str
    sources: tuple[str, ...]


def group_name(epoch: int, seq: int) -> str:
    """Name a group by the order that opens it."""
    return f"{epoch}.{seq}"


def opening_order(sale: int, bucket: int, name: str) -> OrderKey:
    """Return the key of the order that opened a group."""
    match = _NAME.fullmatch(name)
    assert match is not None, name
    epoch, seq = int(match[1]), int(match[2])
    assert epoch <= EPOCH_MAX, name
    assert seq <= SEQ_MAX, name
    return OrderKey(sale, bucket, epoch, seq)


def plan_merges(groups: Sequence[Incomplete], size: int) -> list[Merge]:
    """
    Say which incomplete groups together fill whole ones.

    The oldest comes first, and takes the oldest of those that fill it exactly: a merge that
    leaves a seat empty would save nobody.

    Args:
        groups: of one sale, oldest first.
        size: seats of each group.
    """
    merges: list[Merge] = []
    waiting = [group for group in groups if 0 < group.seats < size]
    while waiting:
        target = waiting.pop(0)
        chosen = _fill(waiting, size - target.seats)
        if chosen:
            merges.append(Merge(target.name, tuple(group.name for group in chosen)))
            waiting = [group for group in waiting if group not in chosen]
    return merges


def _fill(groups: Sequence[Incomplete], seats: int) -> tuple[Incomplete, ...]:
    """Choose groups that take exactly so many seats; older ones are preferred."""
    reached: dict[int, tuple[Incomplete, ...]] = {0: ()}
    for group in groups:
        for total, chosen in list(reached.items()):
            more = total + group.seats
            if more <= seats:
                reached.setdefault(more, (*chosen, group))
        if seats in reached:
            break
    return reached.get(seats, ())
