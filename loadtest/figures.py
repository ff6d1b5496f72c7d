"""
The numbers of a run: rates and latencies from its history. Pure.

Two latencies stand side by side. *From the send* is what a closed-loop generator
reports: it hides the time that a shopper waited for a free connection. *From the
click* counts from the instant at which the shopper meant to click, whatever held
the request up.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.answers import FINAL, Outcome
from loadtest.history import Click, History

_CREATED: Final = 201


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of some answers; None of none."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What a run measured.

    Attributes:
        accepted_per_second: the orders that took the first stock, from the release to the
            last of their tickets (three clicks in four ask for no more than the ticket);
            units that came back and were sold again do not count.
        durable_per_second: the same orders, from the release to the last of their rows, as
            seen by the clicks that waited for theirs; never before the last ticket.
        answered_per_second: every click of the first rush, refusals among them.
        click_to_ticket, sent_to_ticket: clicks that took the first stock and did not ask for
            the row.
        click_to_answer, sent_to_answer: every final answer of the first rush.
        click_to_row, sent_to_row: clicks that took the first stock and asked for the row
            (`Prefer: wait`).
        drain_seconds: from the last ticket of the first stock to the first look after it that
            saw no order without its row; None when nobody looked.
    """

    accepted_per_second: float
    durable_per_second: float
    answered_per_second: float
    click_to_ticket: Latency
    sent_to_ticket: Latency
    click_to_answer: Latency
    sent_to_answer: Latency
    click_to_row: Latency
    sent_to_row: Latency
    drain_seconds: float | None


def measure(
    history: History,
    released_at: float,
    spread_seconds: float,
    looks: Sequence[tuple[float, int]] = (),
) -> Figures:
    """
    Measure the first rush of a run.

    Args:
        history: all of it; what was planned after the rush is left out.
        released_at: monotonic seconds.
        spread_seconds: how long first clicks were planned for.
        looks: when somebody looked at the queues, monotonic seconds, and how many orders
            without a row were there; in order.
    """
    rush_end = released_at + spread_seconds
    rush = [c for c in history.clicks if released_at <= c.planned_at <= rush_end]
    won = [c for c in rush if c.outcome is Outcome.WON]
    final = [c for c in rush if c.outcome in FINAL]
    first = sorted(won, key=_answered_at)[: sum(each.stock for each in history.sales.values())]
    tickets = [c for c in first if not c.waited]
    rows = [c for c in first if c.status == _CREATED]
    return Figures(
        accepted_per_second=_rate(len(first), released_at, tickets),
        durable_per_second=_rate(len(first), released_at, first),
        answered_per_second=_rate(len(rush), released_at, rush),
        click_to_ticket=_latency(tickets, _from_click),
        sent_to_ticket=_latency(tickets, _from_send),
        click_to_answer=_latency(final, _from_click),
        sent_to_answer=_latency(final, _from_send),
        click_to_row=_latency(rows, _from_click),
        sent_to_row=_latency(rows, _from_send),
        drain_seconds=_drain_seconds(tickets, looks),
    )


def _drain_seconds(
    tickets: Sequence[Click],
    looks: Sequence[tuple[float, int]],
) -> float | None:
    last = max(map(_answered_at, tickets), default=0.0)
    empty_at = (at for at, backlog in looks if at >= last and backlog == 0)
    return next((at - last for at in empty_at), None)


def _answered_at(click: Click) -> float:
    return click.answered_at


def _from_click(click: Click) -> float:
    return click.answered_at - click.planned_at


def _from_send(click: Click) -> float:
    return click.answered_at - click.sent_at


def _rate(count: int, since: float, clicks: Iterable[Click]) -> float:
    """Divide by the time to the last of the answers; 0.0 without any."""
    last = max((click.answered_at for click in clicks), default=since)
    return count / (last - since) if last > since else 0.0


def _latency(clicks: Sequence[Click], seconds: Callable[[Click], float]) -> Latency:
    milliseconds = sorted(1_000 * seconds(click) for click in clicks)
    if not milliseconds:
        return Latency(0, None, None, None)
    return Latency(
        len(milliseconds),
        percentile(milliseconds, 0.50),
        percentile(milliseconds, 0.99),
        milliseconds[-1],
    )


def percentile(ascending: Sequence[float], share: float) -> float:
    """Give the smallest value that `share` of the values do not exceed (nearest rank)."""
    assert ascending
    assert 0 < share <= 1
    rank = -(-len(ascending) * share // 1)
    return ascending[int(rank) - 1]


def three(number: float) -> str:
    """Write a number with three significant digits."""
    if number >= 100:
        return f"{round(number):,}" if number < 1_000 else f"{int(float(f'{number:.3g}')):,}"
    return f"{number:#.3g}".rstrip(".")
