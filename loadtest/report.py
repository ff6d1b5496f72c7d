"""The report of a run: one JSON document, or a page in a terminal."""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from os import cpu_count
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from app.kernel.equation import Equation
from loadtest.figures import Figures, Latency, three
from loadtest.verdict import Grade, OrderOutcome, Threshold

_STYLES = {Grade.PASS: "green", Grade.FAIL: "yellow", Grade.BROKEN: "red", Grade.VOID: "magenta"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran, and with what."""

    cores: int
    system: str
    python: str
    doorbuster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    Everything that a run found out.

    Attributes:
        run: its id.
        command: how to run it again.
        clicks: answers by class.
        troubles: by code, what was neither accepted nor finally refused.
        drain_seconds: from the last ticket of the rush to the last look that saw an
            order without its row; None where nobody looked.
        generator_cores: how much of a core the generator itself used during the rush.
        wall_seconds: of the whole run, without the start of the service.
        doubts: why it means nothing, if so.
    """

    grade: Grade
    run: str
    command: str
    orders: OrderOutcome
    clicks: dict[str, int]
    troubles: dict[str, int]
    sold_again: int
    figures: Figures
    drain_seconds: float | None
    generator_cores: float
    wall_seconds: float
    thresholds: tuple[Threshold, ...]
    doubts: tuple[str, ...]
    equations: tuple[Equation, ...]
    machine: Machine


def this_machine() -> Machine:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Machine(cpu_count() or 1, system, platform.python_version(), version("doorbuster"))


def report_as_json(report: Report) -> dict[str, Any]:
    """Turn a report into plain values for one JSON document."""
    plain: dict[str, Any] = msgspec.to_builtins(report)
    for threshold, row in zip(report.thresholds, plain["thresholds"], strict=True):
        row["is_met"] = threshold.is_met
    plain["orders"] |= {
        "stock": report.orders.stock,
        "sold": report.orders.sold,
        "oversold": report.orders.oversold,
    }
    return plain


def render(report: Report) -> RenderableType:
    """Give the verdict page of a terminal."""
    judged = [equation for equation in report.equations if equation.holds is not None]
    broken = [equation for equation in judged if not equation.holds]
    parts: list[RenderableType] = [_verdict_table(report, broken, len(judged))]
    if broken:
        parts.append(_equation_table("Broken", broken))
    missed = [threshold for threshold in report.thresholds if not threshold.is_met]
    parts += [Text(f"threshold missed: {_told(threshold)}", "yellow") for threshold in missed]
    parts += [Text(f"in doubt: {doubt}", "magenta") for doubt in report.doubts]
    parts += [
        Text(f"not judged: {e.invariant} {e.subject}: {e.note}", "magenta")
        for e in report.equations
        if e.holds is None
    ]
    return Panel(
        Group(*parts),
        title=f"[bold]{report.grade}[/]",
        subtitle=report.command,
        border_style=_STYLES[report.grade],
        expand=False,
    )


def render_equations(equations: Sequence[Equation]) -> RenderableType:
    """Give every equation with both sides, the broken ones last, where they are seen."""
    ordered = sorted(equations, key=lambda equation: equation.holds is False)
    return _equation_table("Invariants", ordered)


def _verdict_table(report: Report, broken: Sequence[Equation], judged: int) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    for name, value in _rows(report, broken, judged):
        table.add_row(name, value)
    return table


def _rows(
    report: Report,
    broken: Sequence[Equation],
    judged: int,
) -> Iterable[tuple[str, str]]:
    orders = report.orders
    yield "clicks", ", ".join(f"{name} {count:,}" for name, count in report.clicks.items())
    if report.troubles:
        yield "to repeat", ", ".join(f"{code} {n:,}" for code, n in report.troubles.items())
    yield "accepted", f"{orders.accepted:,} ({report.sold_again:,} of returned units)"
    yield "confirmed", f"{orders.confirmed:,}"
    yield "paid", f"{orders.paid:,}"
    yield "closed", f"{orders.closed:,}"
    yield "refunded", f"{orders.refunded:,}"
    yield "sold", " · ".join(f"{s.sale} {s.sold:,} of {s.stock:,}" for s in orders.sales)
    yield "oversold", f"{orders.oversold:,}"
    yield "lost", f"{orders.lost:,}"
    yield "ledger", _ledger(report.equations)
    yield from _speed_rows(report)
    yield "invariants", f"{judged:,} judged, {len(broken):,} broken"


def _speed_rows(report: Report) -> Iterable[tuple[str, str]]:
    figures = report.figures
    yield "accepted/s", three(figures.accepted_per_second)
    yield "durable/s", three(figures.durable_per_second)
    yield "answers/s", three(figures.answered_per_second)
    yield "click → 202", _both(figures.click_to_ticket, figures.sent_to_ticket)
    yield "click → row", _both(figures.click_to_row, figures.sent_to_row)
    yield "click → answer", _both(figures.click_to_answer, figures.sent_to_answer)
    if report.drain_seconds is not None:
        yield "drain", f"{three(report.drain_seconds)} s"
    machine = report.machine
    yield "generator", f"{three(report.generator_cores)} of {machine.cores} cores, closed loop"
    yield "whole run", f"{three(report.wall_seconds)} s"


def _both(from_click: Latency, from_send: Latency) -> str:
    """Put the open-loop and the closed-loop figure side by side."""
    if from_click.count == 0:
        return str(from_click)
    return f"{from_click} from the click; {_short(from_send)} from the send"


def _short(latency: Latency) -> str:
    assert latency.p50_ms is not None
    assert latency.p99_ms is not None
    return f"p50 {three(latency.p50_ms)} ms, p99 {three(latency.p99_ms)} ms"


def _ledger(equations: Iterable[Equation]) -> str:
    books = [e for e in equations if e.invariant == "I14" and e.subject.startswith("ledger")]
    told = "; ".join(
        f"{e.left} {e.left_value} {e.relation} {e.right} {e.right_value}" for e in books
    )
    if not books:
        return "not read"
    return f"balanced ({told})" if all(e.holds for e in books) else f"NOT BALANCED ({told})"


def _equation_table(title: str, equations: Iterable[Equation]) -> Table:
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in ("", "of", "left", "", "right", "", "for example"):
        table.add_column(column)
    for e in equations:
        table.add_row(
            e.invariant,
            e.subject,
            f"{e.left} [bold]{e.left_value}[/]",
            e.relation,
            f"{e.right} [bold]{e.right_value}[/]",
            {True: "holds", False: "[red]BROKEN[/]", None: "not judged"}[e.holds],
            "\n".join(e.counter_examples) or e.note,
        )
    return table


def _told(threshold: Threshold) -> str:
    relation = "at least" if threshold.is_floor else "at most"
    actual = "not measured" if threshold.actual is None else three(threshold.actual)
    return f"{threshold.name} {actual} {threshold.unit}, {relation} {threshold.limit:g}"
