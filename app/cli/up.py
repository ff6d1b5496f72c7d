"""`doorbuster up`: everything in one, on embedded stores unless URLs are given."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from app.embedded.all_in_one import (
    API_PROCESSES_DEFAULT,
    UpOptions,
    everything_running,
    ready_event,
    restarted_event,
)
from app.embedded.errors import PortTaken, RoleDidNotStart
from app.embedded.run_file import RunFile
from app.embedded.supervisor import RoleRestarted
from app.kernel.errors import DoorbusterError

EXIT_FAILED: Final = 1
EXIT_UNREACHABLE: Final = 5
EXIT_INTERRUPTED: Final = 130
PORT: Final = click.IntRange(0, 65_535)


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=API_PROCESSES_DEFAULT,
    show_default=True,
    help="Processes that take orders.",
)
@click.option("--port", type=PORT, default=8080, show_default=True, help="Public; 0: a free one.")
@click.option("--admin-port", type=PORT, default=9090, show_default=True, help="0: a free one.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".doorbuster"),
    show_default=True,
    help="Where data, logs, keys and run.json are kept.",
)
@click.option("--redis-url", metavar="U", help="Use this Redis or Valkey.")
@click.option("--shard-url", "shard_urls", metavar="U", multiple=True, help="Use this shard; more.")
@click.option("--ledger-url", metavar="U", help="Use this ledger database.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line on stdout.")
def up(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401  click gives each its type
    """Start everything, watch it, and stop it all on Ctrl-C."""
    show = JsonLines() if as_json else Terminal()
    try:
        stopped_by = asyncio.run(serve_until_told(UpOptions(**options), show))
    except DoorbusterError as error:
        click.echo(str(error), err=True)
        sys.exit(_exit_code(error))
    sys.exit(EXIT_INTERRUPTED if stopped_by is signal.SIGINT else 0)


class JsonLines:
    """For programs: a line when it serves, and one per restart."""

    def ready(self, run: RunFile) -> None:
        click.echo(json.dumps(ready_event(run)))

    def restarted(self, event: RoleRestarted) -> None:
        click.echo(json.dumps(restarted_event(event)))


class Terminal:
    """For people: where to go, and a line per restart on stderr."""

    def ready(self, run: RunFile) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_row("shop", run.public)
        table.add_row("operations", run.admin)
        table.add_row("admin token", run.admin_token)
        table.add_row("sandbox", run.sandbox)
        table.add_row("data, logs", run.data_dir)
        Console().print(Panel(table, title="Doorbuster serves", subtitle="Ctrl-C stops it"))

    def restarted(self, event: RoleRestarted) -> None:
        click.echo(f"{event.role} had died; it serves again as process {event.pid}", err=True)


async def serve_until_told(options: UpOptions, show: JsonLines | Terminal) -> signal.Signals:
    """Serve until a signal asks to stop; tell which. A second signal ends everything at once."""
    asked: list[signal.Signals] = []
    working = asyncio.create_task(_serve(options, show))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _stopper(working, asked, number))
    try:
        await working
    except asyncio.CancelledError:
        if not asked:
            raise
    return asked[0]


async def _serve(options: UpOptions, show: JsonLines | Terminal) -> None:
    async with everything_running(options, show.restarted) as run:
        show.ready(run)
        await asyncio.Event().wait()  # until cancelled


def _stopper(
    working: asyncio.Task[None], asked: list[signal.Signals], number: signal.Signals
) -> Callable[[], None]:
    def stop() -> None:
        if asked:  # the children end with us: they are on a leash
            os._exit(EXIT_INTERRUPTED)
        asked.append(number)
        working.cancel()

    return stop


def _exit_code(error: DoorbusterError) -> int:
    """5 for what the caller can put right outside: a port, or a store that did not answer."""
    is_away = isinstance(error, RoleDidNotStart) and error.status == EXIT_UNREACHABLE
    return EXIT_UNREACHABLE if is_away or isinstance(error, PortTaken) else EXIT_FAILED
