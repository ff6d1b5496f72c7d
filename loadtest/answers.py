"""
What an answer to a click means: by its code, never by its status alone.

A 409 is the commonest good answer of a flash sale and a 200 can be a mistake, so
everything that counts outcomes counts these.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, NamedTuple


class Outcome(StrEnum):
    """The classes in which a run counts its clicks."""

    WON = "won"
    SOLD_OUT = "sold_out"
    DUPLICATE = "duplicate"
    LIMIT = "limit"
    NO_SEAT = "no_seat"
    THROTTLED = "throttled"
    UNKNOWN = "unknown"
    ERROR = "error"


FINAL: Final = frozenset(
    {Outcome.WON, Outcome.SOLD_OUT, Outcome.DUPLICATE, Outcome.LIMIT, Outcome.NO_SEAT}
)
ACCEPTED: Final = frozenset({Outcome.WON, Outcome.DUPLICATE})

_BY_CODE: Final = {
    "sold_out": Outcome.SOLD_OUT,
    "limit_reached": Outcome.LIMIT,
    "already_in_group": Outcome.LIMIT,
    "group_full": Outcome.NO_SEAT,
    "group_expired": Outcome.NO_SEAT,
    "group_not_found": Outcome.NO_SEAT,
    "outcome_unknown": Outcome.UNKNOWN,
    # Refused before anything was written; come again later.
    "not_open": Outcome.THROTTLED,
    "sale_paused": Outcome.THROTTLED,
    "too_many_requests": Outcome.THROTTLED,
    "recovering": Outcome.THROTTLED,
    "overloaded": Outcome.THROTTLED,
    "backlog_full": Outcome.THROTTLED,
    "shard_unavailable": Outcome.THROTTLED,
}


class Answer(NamedTuple):
    """
    An answer to a click, read.

    Attributes:
        order_id: of an accepted order, else empty.
        code: of a refusal, else empty.
        may_return: a sold-out answer said that units may still come back.
        retry_after_ms: how long a throttled shopper was told to wait.
        group: of an order in a group, else empty; the code that its leader shares.
    """

    outcome: Outcome
    order_id: str = ""
    code: str = ""
    may_return: bool = False
    retry_after_ms: int = 0
    group: str = ""


NO_ANSWER: Final = Answer(Outcome.UNKNOWN, code="no_answer")
UNREACHABLE: Final = Answer(Outcome.THROTTLED, code="unreachable")


def read_answer(status: int, body: Mapping[str, Any], *, replayed: bool) -> Answer:
    """
    Say what an answer to POST orders means.

    Args:
        status: of HTTP.
        body: the JSON object.
        replayed: the header Idempotency-Replayed said so.

    Returns:
        ERROR for everything that a well-behaved shopper should never see, the
        500 among it; whether to repeat is `must_repeat`.
    """
    if status in {HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
        order_id = body.get("order_id")
        if not isinstance(order_id, str) or not order_id:
            return Answer(Outcome.ERROR, code="no_order_id")
        outcome = Outcome.DUPLICATE if replayed else Outcome.WON
        return Answer(outcome, order_id, group=str(body.get("group") or ""))
    code = str(body.get("code", f"http_{status}"))
    return Answer(
        _BY_CODE.get(code, Outcome.ERROR),
        code=code,
        may_return=body.get("may_return") is True,
        retry_after_ms=_milliseconds(body.get("retry_after_ms")),
    )


def must_repeat(answer: Answer) -> bool:
    """Say whether the click is undecided until it is sent again with the same key."""
    return answer.outcome in {Outcome.UNKNOWN, Outcome.THROTTLED} or answer.code == "internal_error"


def accepted_id(answers: Iterable[Answer]) -> str:
    """Give the order id among the answers to one intent; empty when it was not accepted."""
    return next((answer.order_id for answer in answers if answer.outcome in ACCEPTED), "")


def _milliseconds(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
