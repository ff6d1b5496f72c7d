"""How the verdict of a load run reads on a terminal."""

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from app.cli.audit import print_equations
from app.cli.output import results
from app.kernel.equation import Doubt, Equation
from loadtest.figures import Latency, three
from loadtest.report import Report
from loadtest.verdict import Grade, Threshold

_STYLES: Final = {
    Grade.PASS: "green",
    Grade.FAIL: "yellow",
    Grade.BROKEN: "red",
    Grade.VOID: "magenta",
}


def print_report(report: Report) -> None:
    """Print what was found out, what is wrong with it, and how to run it again."""
    console = results()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    for name, told in _rows(report):
        table.add_row(name, escape(told))
    style = _STYLES[report.grade]
    title = f"[bold]{report.grade}[/]"
    console.print(Panel(table, title=title, border_style=style, expand=False))
    for complaint in _complaints(report):
        console.print(f"[{style}]{escape(complaint)}[/]", soft_wrap=True, highlight=False)
    wrong = [equation for equation in report.equations if _is_wrong(equation)]
    if wrong:
        print_equations(wrong)
    _print_command(console, report)


def _print_command(console: Console, report: Report) -> None:
    machine = report.machine
    where = f"{machine.cores} cores, {machine.system}, Python {machine.python}"
    told = f"doorbuster {machine.doorbuster} on {where}\nagain: {report.command}"
    console.print(f"[dim]{escape(told)}[/]", soft_wrap=True, highlight=False)


def _is_wrong(equation: Equation) -> bool:
    return equation.holds is False or equation.doubt in {Doubt.UNREACHABLE, Doubt.RECOVERING}


def _complaints(report: Report) -> Iterator[str]:
    for threshold in report.thresholds:
        if not threshold.is_met:
            yield f"threshold missed: {_told(threshold)}"
    for doubt in report.doubts:
        yield f"in doubt: {doubt}"


def _told(threshold: Threshold) -> str:
    relation = "at least" if threshold.is_floor else "at most"
    actual = "not measured" if threshold.actual is None else three(threshold.actual)
    return f"{threshold.name} {actual} {threshold.unit}, {relation} {threshold.limit:g}"


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    yield from _order_rows(report)
    yield from _speed_rows(report)
    judged = [equation for equation in report.equations if equation.holds is not None]
    broken = sum(equation.holds is False for equation in judged)
    yield "invariants", f"{len(judged):,} judged, {broken:,} broken"


def _order_rows(report: Report) -> Iterator[tuple[str, str]]:
    orders = report.orders
    yield "clicks", ", ".join(f"{name} {count:,}" for name, count in report.clicks.items())
    if report.troubles:
        yield "to repeat", ", ".join(f"{code} {n:,}" for code, n in report.troubles.items())
    yield "accepted", f"{orders.accepted:,}, {report.sold_again:,} of them units that came back"
    yield "confirmed", f"{orders.confirmed:,}"
    yield "paid", f"{orders.paid:,}"
    yield "closed", f"{orders.closed:,}"
    yield "refunded", f"{orders.refunded:,}"
    yield "sold", ", ".join(f"{s.sale} {s.sold:,} of {s.stock:,}" for s in orders.sales)
    yield "oversold", f"{orders.oversold:,}"
    yield "lost", f"{orders.lost:,}"
    yield "ledger", _ledger(report)


def _ledger(report: Report) -> str:
    books = [e for e in report.equations if e.invariant == "I14" and e.left == "debits"]
    if not books:
        return "no entries"
    told = ", ".join(f"{e.subject.removeprefix('ledger ')} {e.left_value:,}" for e in books)
    return f"balanced ({told})" if all(e.holds for e in books) else f"NOT BALANCED ({told})"


def _speed_rows(report: Report) -> Iterator[tuple[str, str]]:
    figures = report.figures
    yield "accepted/s", three(figures.accepted_per_second)
    yield "durable/s", three(figures.durable_per_second)
    yield "answers/s", three(figures.answered_per_second)
    yield "click → 202", _both(figures.click_to_ticket, figures.sent_to_ticket)
    yield "click → row", _both(figures.click_to_row, figures.sent_to_row)
    yield "click → answer", _both(figures.click_to_answer, figures.sent_to_answer)
    if figures.drain_seconds is not None:
        yield "drain", f"{three(figures.drain_seconds)} s"
    yield "generator", f"{three(report.generator_cores)} of {report.machine.cores} cores"
    yield "whole run", f"{three(report.wall_seconds)} s"


def _both(from_click: Latency, from_send: Latency) -> str:
    """Put the open-loop and the closed-loop figure side by side."""
    if not from_click.count:
        return "none measured"
    beside = f"from the send: {_told_latency(from_send)}; n={from_click.count:,}"
    return f"{_told_latency(from_click)} ({beside})"


def _told_latency(latency: Latency) -> str:
    assert latency.p50_ms is not None
    assert latency.p99_ms is not None
    return f"p50 {three(latency.p50_ms)}, p99 {three(latency.p99_ms)} ms"
