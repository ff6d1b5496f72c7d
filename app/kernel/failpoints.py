"""
Named failpoints: where a process can be made to fail on purpose, between any two steps.

A failpoint is one line after (or before) a step of a worker. It costs one look into an empty
dictionary unless it is armed, and it is armed only by a setting that is refused outside embedded
mode. CATALOGUE lists every name there is; tests/style holds it and the code together, and
tests/faults/steps kills a process at each of them.
"""

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.kernel.errors import Unavailable

CATALOGUE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "flusher.after_read": "entries were read; nothing is written",
        "flusher.after_lock": "the lease row is locked, epoch and offset are as they were read",
        "flusher.after_insert": "the orders are inserted, the offset has not moved",
        "flusher.before_commit": "all of the batch is written, nothing of it is committed",
        "flusher.after_commit": "the batch stands; nobody was told",
        "flusher.after_publish": "who waits was told; the stream is not trimmed",
        "flusher.after_trim": "the batch is done; the next position is not noted",
        "closer.after_claim": "orders past their deadline are closing",
        "closer.after_settle": "their providers have answered; the rows say closing",
        "closer.before_commit": "orders, lease and moves are written, not committed",
        "closer.after_commit": "the orders are closed; their units are not in Redis",
        "mover.after_supersede": "moves of older epochs are crossed off",
        "mover.before_script": "a move was read; its script was not called",
        "mover.after_script": "Redis has applied a move; Postgres does not know",
        "mover.before_debit": "a withdrawal was taken out of Redis; its lease is as it was",
        "mover.after_debit": "the lease is lowered; the units are in transit",
        "mover.before_done": "moves are applied, not crossed off",
        "mover.after_done": "moves are crossed off",
        "mover.before_credit": "a debited move was read; the pool is as it was",
        "mover.after_credit": "the pool has the units; the move says debited",
        "mover.after_credited": "credited moves are crossed off",
        "grants.after_lease": "a sale has its lease rows; its own row does not say so",
        "grants.after_leased": "the sale's row says that it has them; nothing is granted",
        "grants.after_issue": "units have left the pool",
        "grants.after_apply": "the lease has the units; the grant says issued",
        "grants.after_settle": "the grant is crossed off",
        "recovery.after_draining": "the bucket is draining in Postgres; Redis may still sell",
        "recovery.after_load": "the server knows the scripts",
        "recovery.after_fence": "the old epoch is fenced; its stream is not drained",
        "recovery.after_drain": "the flush has passed the last entry of the old epoch",
        "recovery.after_epoch": "Postgres has the next epoch; none of its keys is written",
        "recovery.after_hashes": "shoppers and replays are written; there is no state",
        "recovery.after_write": "every key is written; the lease row says draining",
        "recovery.after_open": "the lease row says open; nothing was renewed yet",
        "recovery.after_forget": "the keys of older epochs are gone",
        "recovery.after_close": "the bucket is closed; its old keys are still there",
        "poster.after_ledger": "the ledger has the transfers; the facts still wait",
        "poster.before_commit": "the facts are marked, not committed",
        "poster.after_commit": "the facts are done",
        "callback.before_commit": "a payment's message has its effect, not committed",
        "callback.after_commit": "it is committed; the provider has no acknowledgement",
        "refunds.after_claim": "a refund was taken by a sender; its provider knows nothing",
        "refunds.before_send": "the row says sent; the provider was not called",
        "refunds.after_send": "the provider has answered; the row does not know",
        "refunds.before_commit": "a refund's message has its effect, not committed",
        "groups.after_shut": "a group takes nobody any more; Redis does not know",
        "groups.before_merge": "members, groups and moves are written, not committed",
        "groups.after_merge": "members are in one group; Redis does not know",
        "groups.after_claim": "groups past their end are failing; no member was told",
        "groups.before_failed": "members are told, not committed; the group is failing",
        "groups.after_failed": "a group has failed; no money was asked back, Redis does not know",
        "groups.before_release": "an ended group and its seat move are written, not committed",
        "groups.after_release": "the seat move stands; it was not applied",
        "group_refunds.after_take": "a member's row is done, not committed; no refund is written",
        "group_refunds.before_commit": "a member's refund is written, not committed",
        "group_refunds.after_commit": "a member's refund stands; its provider knows nothing",
        "refund_request.after_insert": "a refund and its fact are written; its order counts none",
        "operator_refunds.before_commit": "an operator's refund is written, not committed",
        "operator_refunds.after_commit": "an operator's refund stands; the operator was not told",
        "house.after_open": "the house has opened, or taken from a balance; the shard was not told",
        "house.after_confirm": "a payment's proof stands beside the books; its order was not told",
        "house.after_paid_back": "a refund's proof stands beside the books; its shard was not told",
        "take_back.before_commit": "a shopper's cancel of a paid order is written, not committed",
        "take_back.after_commit": "a paid order is cancelled and refunded; nobody was told",
        "receipt.before_commit": "overdue parcels are received, not committed",
        "receipt.after_commit": "overdue parcels are received",
        "resealing.before_commit": "old fields are sealed anew, not committed",
        "resealing.after_commit": "old fields of one shard are sealed anew",
        "refunds.after_commit": "the effect is committed; its sender or provider does not know",
    }
)


class Act(StrEnum):
    """What happens at an armed failpoint."""

    KILL = "kill"  # SIGKILL to itself: nothing is tidied up
    ERROR = "error"  # a store or provider "does not answer"
    PAUSE = "pause"  # SIGSTOP to itself: a zombie, until somebody sends SIGCONT


@dataclass(frozen=True, slots=True, kw_only=True)
class Failpoint:
    """
    One failpoint to arm.

    Attributes:
        name: of the catalogue.
        act: see there.
        at: at the n-th time that it is passed, and never again.

    Raises:
        ValueError: no such name, or `at` is less than 1.
    """

    name: str
    act: Act = Act.KILL
    at: int = 1

    def __post_init__(self) -> None:
        if self.name not in CATALOGUE:
            raise ValueError(f"{self.name} is no failpoint")  # noqa: EM102, TRY003  for settings
        if self.at < 1:
            raise ValueError("at counts from 1")  # noqa: EM101, TRY003  for settings


_armed: dict[str, list[Failpoint]] = {}
_passed: dict[str, int] = {}


def arm_failpoints(wanted: Iterable[Failpoint]) -> None:
    """Arm these and no others, in this process, counting from now."""
    _armed.clear()
    _passed.clear()
    for one in wanted:
        _armed.setdefault(one.name, []).append(one)


def failpoint(name: str) -> None:
    """
    Do here what was armed for `name`; nothing unless something was.

    Raises:
        Unavailable: the act is ERROR.
    """
    if name in _armed:
        _pass(name)


def _pass(name: str) -> None:
    _passed[name] = count = _passed.get(name, 0) + 1
    for armed in _armed[name]:
        if armed.at == count:
            _act(armed)


def _act(armed: Failpoint) -> None:
    match armed.act:
        case Act.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Act.PAUSE:
            os.kill(os.getpid(), signal.SIGSTOP)
        case Act.ERROR:
            raise Unavailable(failpoint=armed.name)
