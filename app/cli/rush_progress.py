"""A rush while it runs: a live table in a terminal, a line a second elsewhere."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadtest.answers import Outcome
from loadtest.rush import Rush

_FRAME_SECONDS: Final = 0.25
_LINE_SECONDS: Final = 1.0


@asynccontextmanager
async def show_progress() -> AsyncIterator[Callable[[Rush], None]]:
    """
    Show a rush on stderr from when it is handed over until the context is left.

    Yields:
        What to hand the rush to, once.
    """
    given: asyncio.Future[Rush] = asyncio.get_running_loop().create_future()
    showing = asyncio.create_task(_show(given))
    try:
        yield given.set_result
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing


async def _show(given: asyncio.Future[Rush]) -> None:
    rush = await given
    console = Console(stderr=True)
    if console.is_terminal:
        await _show_live(rush, console)
    else:
        await _show_lines(rush, console)


async def _show_live(rush: Rush, console: Console) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            table = Table.grid(padding=(0, 3, 0, 0))
            for name, value in _facts(rush):
                table.add_row(f"[bold]{name}[/]", value)
            live.update(table, refresh=True)
            await asyncio.sleep(_FRAME_SECONDS)


async def _show_lines(rush: Rush, console: Console) -> None:
    while True:
        line = " · ".join(f"{name} {value}" for name, value in _facts(rush))
        console.print(line, soft_wrap=True, highlight=False)
        await asyncio.sleep(_LINE_SECONDS)


def _facts(rush: Rush) -> Iterator[tuple[str, str]]:
    shop, counts = rush.shop, rush.history.counts()
    since = time.monotonic() - rush.released_at if rush.released_at else 0.0
    yield f"{since:5.1f} s", rush.phase
    yield "answered", f"{shop.first_answers:,} of {len(rush.visits):,}"
    yield "won", f"{counts[Outcome.WON]:,}"
    yield "sold out", f"{counts[Outcome.SOLD_OUT]:,}"
    yield "sold again", f"{shop.sold_again:,}"
    yield "backlog", f"{rush.backlog:,}"
    for ending, begun in sorted(shop.checkout.begun.items()):
        yield ending.value.replace("_", " "), f"{shop.checkout.ended[ending]:,} of {begun:,}"
