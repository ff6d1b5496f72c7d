"""How an outcome is told: the problem and its members, and the name in the metrics. Pure."""

from typing import Any, Final, NamedTuple, assert_never

from app.kernel.clock import unix_ms
from app.orders.answers import OverLimit, PlaceCode, Placed, Refused, Replay, SoldOut
from app.orders.selling import Accepted, NotPlaced, Outcome
from app.sales.sale import Sale

NOT_OPEN_WAIT_MS_MIN: Final = 250  # opens_at has passed, and the bucket opens any moment

PLACING_REFUSALS: Final = (
    "sale_not_found",
    "not_open",
    "sale_ended",
    "sale_paused",
    "limit_reached",
    "sold_out",
    "group_not_found",
    "group_full",
    "group_expired",
    "already_in_group",
    "idempotency_mismatch",
    "recovering",
    "overloaded",
    "backlog_full",
    "outcome_unknown",
    "shard_unavailable",
    "internal_error",
)

_REFUSED: Final = {
    PlaceCode.KEY_MISMATCH: "idempotency_mismatch",
    PlaceCode.ENDED: "sale_ended",
    PlaceCode.PAUSED: "sale_paused",
    PlaceCode.GROUP_NOT_FOUND: "group_not_found",
    PlaceCode.GROUP_FULL: "group_full",
    PlaceCode.GROUP_EXPIRED: "group_expired",
    PlaceCode.IN_ANOTHER_GROUP: "already_in_group",
    PlaceCode.BACKLOG_FULL: "backlog_full",
    PlaceCode.STALE: "recovering",
}
_NOT_PLACED: Final = {
    NotPlaced.RECOVERING: "recovering",
    NotPlaced.OVERLOADED: "overloaded",
    NotPlaced.BROKEN: "internal_error",
    NotPlaced.UNKNOWN: "outcome_unknown",
}


class Refusal(NamedTuple):
    """A problem of the catalogue with the members of the case."""

    code: str
    fields: dict[str, Any]


def refusal_of(sale: Sale, outcome: Outcome, now_ms: int) -> Refusal:
    """
    Say how an order that was not accepted is refused.

    Args:
        sale: that was asked for.
        outcome: anything but `Accepted`.
        now_ms: the selling clock.
    """
    if isinstance(outcome, SoldOut):
        return _sold_out(sale, outcome, now_ms)
    if isinstance(outcome, NotPlaced):
        return Refusal(_NOT_PLACED[outcome], {})
    if isinstance(outcome, OverLimit):
        return Refusal("limit_reached", {"remaining": outcome.units_allowed})
    assert isinstance(outcome, Refused), outcome
    if outcome.code is PlaceCode.NOT_OPEN:
        wait_ms = max(NOT_OPEN_WAIT_MS_MIN, unix_ms(sale.opens_at) - now_ms)
        opens_at = sale.opens_at.isoformat().replace("+00:00", "Z")
        return Refusal("not_open", {"retry_after_ms": wait_ms, "opens_at": opens_at})
    return Refusal(_REFUSED[outcome.code], {})


def _sold_out(sale: Sale, outcome: SoldOut, now_ms: int) -> Refusal:
    """Say whether units may still come back: until the sale ends, unpaid orders return theirs."""
    may_return = now_ms < unix_ms(sale.ends_at)
    fields: dict[str, Any] = {"retryable": may_return, "may_return": may_return}
    if outcome.units_left:
        fields["available"] = outcome.units_left
    return Refusal("sold_out", fields)


def outcome_name(outcome: Outcome) -> str:
    """Name an outcome for the metrics."""
    match outcome:
        case Accepted():
            return "replay" if outcome.is_replay else "placed"
        case OverLimit():
            return "over_limit"
        case SoldOut():
            return "sold_out"
        case Refused():
            return outcome.code.name.lower()
        case NotPlaced():
            return outcome.value
        case Placed() | Replay():
            raise AssertionError(outcome)
        case _:
            assert_never(outcome)
