"""The picture of a run: rates with their ranges, and who has the processor time. Plain SVG."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Final

from loadtest.bench.measurement import Spread

COLOURS: Final = {
    "api": "#3b6ea8",
    "valkey": "#b5482f",
    "worker": "#6d9f4b",
    "postgres": "#8a63a8",
    "coordinator": "#b08d2e",
    "generator": "#9a9a9a",
}
_ROW, _TOP, _LABEL, _PANEL, _GAP = 34, 64, 230, 360, 110


def draw(rates: Mapping[str, Spread], used: Mapping[str, Mapping[str, float]], command: str) -> str:
    """
    Draw one row per variant: left its rate, right what an answer costs.

    Args:
        rates: answers per second, by title.
        used: processor microseconds per answer, by title and group of processes.
        command: what repeats the run.
    """
    width = _LABEL + 2 * _PANEL + 2 * _GAP
    height = _TOP + _ROW * len(rates) + 40
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(_LABEL, 24, "answers per second, median and range", bold=True),
        _text(_LABEL + _PANEL + _GAP, 24, "processor time per answer, µs", bold=True),
        *_legend(),
        *_rows(rates, used),
        _text(12, height - 12, command),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _rows(rates: Mapping[str, Spread], used: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    fastest = max((rate.most for rate in rates.values()), default=1.0) or 1.0
    dearest = max((sum(parts.values()) for parts in used.values()), default=1.0) or 1.0
    for index, (title, rate) in enumerate(rates.items()):
        y = _TOP + _ROW * index
        yield _text(_LABEL - 10, y + 17, title, anchor="end")
        yield from _rate_bar(rate, y, _PANEL / fastest)
        yield from _cost_bar(used.get(title, {}), y, _PANEL / dearest)


def _rate_bar(rate: Spread, y: int, scale: float) -> Iterator[str]:
    yield _bar(_LABEL, y, rate.median * scale, "#4d4d4d")
    least, most = _LABEL + rate.least * scale, _LABEL + rate.most * scale
    yield f'<path d="M{least:.1f} {y + 12}H{most:.1f}" stroke="#e08a1e" stroke-width="3"/>'
    yield _text(most + 8, y + 17, f"{rate.median:,.0f}")


def _cost_bar(parts: Mapping[str, float], y: int, scale: float) -> Iterator[str]:
    x: float = _LABEL + _PANEL + _GAP
    for name, us in parts.items():
        yield _bar(x, y, us * scale, COLOURS.get(name, "#cccccc"))
        x += us * scale
    yield _text(x + 8, y + 17, f"{sum(parts.values()):.0f}")


def _legend() -> Iterator[str]:
    x = _LABEL + _PANEL + _GAP
    for name, colour in COLOURS.items():
        yield f'<rect x="{x}" y="36" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 14, 46, name)
        x += 24 + 8 * len(name)


def _bar(x: float, y: int, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="24" fill="{colour}"/>'


def _text(x: float, y: int, words: str, *, bold: bool = False, anchor: str = "start") -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:.1f}" y="{y}" text-anchor="{anchor}"'
    return f"<text {place}{weight}>{escape(words, quote=False)}</text>"
