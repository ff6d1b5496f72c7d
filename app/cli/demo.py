"""`doorbuster demo`: a real rush over HTTP on a service of its own, with a verdict."""

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import uvloop

from app.cli.exits import Exit
from app.cli.output import print_json
from app.cli.run_report import print_report
from app.cli.rush_progress import show_progress
from app.embedded.all_in_one import UpOptions, everything_running
from app.embedded.errors import PortTaken, RoleDidNotStart
from app.embedded.run_file import RunFile
from app.embedded.supervisor import RoleRestarted
from app.kernel.errors import DoorbusterError
from loadtest.assess import assess
from loadtest.errors import LoadError
from loadtest.report import Report, report_as_json
from loadtest.rush import RushOptions, Site, play_rush
from loadtest.tokens import Signer
from loadtest.verdict import EXIT_CODES

# The last quarter takes no new payment, and payments compete with the rush for two cores.
_PAY_WITHIN_SECONDS_MIN: Final = 10
_SHOPPERS_PER_SECOND: Final = 2_500
_PORTS_TO_STAY: Final = (8080, 9090)
_ANY_PORTS: Final = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What the command line said."""

    shoppers: int
    stock: int
    leave: bool
    data_dir: Path
    as_json: bool

    @property
    def command(self) -> str:
        parts = ["doorbuster demo", f"--shoppers {self.shoppers}", f"--stock {self.stock}"]
        return " ".join([*parts, "--exit"] if self.leave else parts)


@click.command()
@click.option("--shoppers", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True)
@click.option("--stock", type=click.IntRange(1, 1_000_000), default=1_000, show_default=True)
@click.option("--exit", "leave", is_flag=True, help="Leave with the verdict as exit code.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".doorbuster"),
    show_default=True,
    help="Where data, logs, keys and run.json are kept; one with earlier orders will do.",
)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
def demo(*, shoppers: int, stock: int, leave: bool, data_dir: Path, as_json: bool) -> None:
    """
    Start everything and send a rush of shoppers.

    Two sales are opened, the shoppers released at the opening instant; they pay,
    cancel, come back and let orders expire. Then everything is checked. Exit
    codes: 0 passed, 1 a threshold missed, 3 an invariant broken, 4 inconclusive.
    """
    wish = _Wish(shoppers=shoppers, stock=stock, leave=leave, data_dir=data_dir, as_json=as_json)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sys.exit(runner.run(_play_until_told(wish)))
    except DoorbusterError as error:
        click.echo(str(error), err=True)
        sys.exit(_exit_code(error))
    except LoadError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(Exit.INCONCLUSIVE)


def _exit_code(error: DoorbusterError) -> int:
    """5 for what can be put right outside: a port, a store that does not answer."""
    is_away = isinstance(error, RoleDidNotStart) and error.status == Exit.UNREACHABLE
    return Exit.UNREACHABLE if is_away or isinstance(error, PortTaken) else Exit.FAILED


async def _play_until_told(wish: _Wish) -> int:
    """Play, and stop what was started when a signal comes; tell the exit code."""
    playing = asyncio.create_task(_play(wish))
    is_told = False

    def stop() -> None:
        nonlocal is_told
        if is_told:  # the service's processes end with us: they are on a leash
            os._exit(Exit.INTERRUPTED)
        is_told = True
        playing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await playing
    except asyncio.CancelledError:
        return Exit.INTERRUPTED


async def _play(wish: _Wish) -> int:
    began_at = time.monotonic()
    async with _started(wish) as run:
        click.echo(f"the service is up after {time.monotonic() - began_at:.1f} s", err=True)
        report = await _rush(wish, run)
        _tell(wish, report)
        if not wish.leave:
            await _stay(run)
    return EXIT_CODES[report.grade]


@asynccontextmanager
async def _started(wish: _Wish) -> AsyncIterator[RunFile]:
    port, admin_port = _ANY_PORTS if wish.leave else _PORTS_TO_STAY
    options = UpOptions(port=port, admin_port=admin_port, data_dir=wish.data_dir)
    async with everything_running(options, _say_restarted) as run:
        yield run


def _say_restarted(event: RoleRestarted) -> None:
    click.echo(f"{event.role} had died; it serves again as process {event.pid}", err=True)


async def _rush(wish: _Wish, run: RunFile) -> Report:
    site = Site(
        public_url=run.public,
        admin_url=run.admin,
        admin_token=run.admin_token,
        sandbox_url=run.sandbox,
        signer=Signer.from_keys(run.auth_keys),
    )
    # A data directory may hold earlier rushes: sales, shoppers and keys are new each time.
    options = RushOptions(
        run=secrets.token_hex(4),
        shoppers=wish.shoppers,
        stock=wish.stock,
        pay_within_seconds=_PAY_WITHIN_SECONDS_MIN + wish.shoppers // _SHOPPERS_PER_SECOND,
    )
    async with show_progress() as watch:
        rush = await play_rush(site, options, watch)
        rush.phase = "checks"
        return await assess(site, rush, wish.command)


def _tell(wish: _Wish, report: Report) -> None:
    if wish.as_json:
        print_json(report_as_json(report))
    else:
        print_report(report)


async def _stay(run: RunFile) -> None:
    """Print where everything is, and serve until told to stop."""
    click.echo(f"shop         {run.public}", err=True)
    click.echo(f"operations   {run.admin}", err=True)
    click.echo(f"admin token  {run.admin_token}", err=True)
    click.echo(f"sandbox      {run.sandbox}", err=True)
    click.echo("Ctrl-C stops it", err=True)
    await asyncio.Event().wait()
