"""
The numbers of a run: rates and latencies from its history. Pure.

Two latencies stand side by side. *From the send* is what a closed-loop generator
reports: it hides the time that a shopper waited for a free connection. *From the
click* counts from the instant at which the shopper meant to click, whatever held
the request up, and however often it had to be repeated.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from loadtest.answers import ACCEPTED, FINAL
from loadtest.history import Click, History, Intent

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
        answered_per_second: first final answers of the rush, refusals among them.
        click_to_ticket, sent_to_ticket: clicks that took the first stock and did not ask for
            the row.
        click_to_answer, sent_to_answer: every first final answer of the rush.
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
    Measure the rush of a run.

    Args:
        history: all of it; intents that were first planned after the rush are left out.
        released_at: monotonic seconds.
        spread_seconds: how long first clicks were planned for.
        looks: when somebody looked at the queues, monotonic seconds, and how many orders
            without a row were there; in order.
    """
    rush = _Rush.find(history, released_at, released_at + spread_seconds)
    tickets = [click for click in rush.first_stock if not click.waited]
    rows = [click for click in rush.first_stock if click.status == _CREATED]
    return Figures(
        accepted_per_second=_rate(len(rush.first_stock), released_at, tickets),
        durable_per_second=_rate(len(rush.first_stock), released_at, rush.first_stock),
        answered_per_second=_rate(len(rush.answers), released_at, rush.answers),
        click_to_ticket=_latency(tickets, rush.from_click),
        sent_to_ticket=_latency(tickets, _from_send),
        click_to_answer=_latency(rush.answers, rush.from_click),
        sent_to_answer=_latency(rush.answers, _from_send),
        click_to_row=_latency(rows, rush.from_click),
        sent_to_row=_latency(rows, _from_send),
        drain_seconds=_drain_seconds(tickets, looks),
    )


@dataclass(frozen=True, slots=True)
class _Rush:
    """
    The part of a history that is measured.

    Attributes:
        planned_at: when each intent was first meant, however often it was repeated.
        answers: the first final answer of each intent.
        first_stock: the accepted ones among them, until the first stock was gone.
    """

    planned_at: dict[Intent, float]
    answers: list[Click]
    first_stock: list[Click]

    @classmethod
    def find(cls, history: History, released_at: float, rush_end: float) -> Self:
        planned_at: dict[Intent, float] = {}
        answers: dict[Intent, Click] = {}
        for click in sorted(history.clicks, key=_answered_at):
            planned = min(planned_at.get(click.intent, click.planned_at), click.planned_at)
            if released_at <= planned <= rush_end:
                planned_at[click.intent] = planned
                if click.outcome in FINAL:
                    answers.setdefault(click.intent, click)
        final = list(answers.values())
        stock = sum(terms.stock for terms in history.sales.values())
        first_stock = [click for click in final if click.outcome in ACCEPTED][:stock]
        return cls(planned_at, sorted(final, key=_answered_at), first_stock)

    def from_click(self, click: Click) -> float:
        return click.answered_at - self.planned_at[click.intent]


def _drain_seconds(
    tickets: Sequence[Click],
    looks: Sequence[tuple[float, int]],
) -> float | None:
    last = max(map(_answered_at, tickets), default=0.0)
    empty_at = (at for at, backlog in looks if at >= last and backlog == 0)
    return next((at - last for at in empty_at), None)


def _answered_at(click: Click) -> float:
    return click.answered_at


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
