"""`doorbuster load`: the Locust lab against a service that runs already."""

import asyncio
import secrets
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.table import Table

from app.cli.audit import EXIT_OF, print_equations
from app.cli.exits import Exit
from app.cli.output import print_json, results
from app.cli.run_report import print_report
from app.embedded.errors import NotRunning
from app.embedded.run_file import read_run_file
from app.kernel.equation import equations_as_json, verdict_of
from loadtest.errors import LoadError, NoAnswer, Unreachable
from loadtest.lab import SCENARIOS, LabOptions, run_lab, verify_lab
from loadtest.report import report_as_json
from loadtest.rush import Site
from loadtest.tokens import Signer
from loadtest.verdict import EXIT_CODES

T = TypeVar("T")
Command = Callable[..., None]

_TARGET_OPTIONS: Final = (
    click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(".doorbuster"),
        show_default=True,
        help="Of the running `doorbuster up`; read for URLs and keys unless --url is given.",
    ),
    click.option("--url", metavar="U", help="Public listener of a service elsewhere."),
    click.option("--admin-url", metavar="U", help="Its admin listener."),
    click.option("--admin-token", metavar="T", help="Of an operator."),
    click.option(
        "--sandbox-url", metavar="U", default="", help="Its gateway, for scenarios that pay."
    ),
    click.option("--auth-kid", metavar="K", default="", help="Key id for shopper tokens."),
    click.option(
        "--auth-key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with the HS256 key for shopper tokens, base64url.",
    ),
)


def _with_target(command: Command) -> Command:
    for option in reversed(_TARGET_OPTIONS):
        command = option(command)
    return command


@click.group()
def load() -> None:
    """Put load on a running service, with a verdict."""


@load.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_scenarios(*, as_json: bool) -> None:
    """Name the scenarios."""
    if as_json:
        print_json({name: scenario.told for name, scenario in SCENARIOS.items()})
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, scenario in SCENARIOS.items():
        table.add_row(f"[bold]{name}[/]", scenario.told)
    results().print(table)


@load.command()
@click.argument("scenario", type=click.Choice(sorted(SCENARIOS)))
@_with_target
@click.option("--users", type=click.IntRange(1, 20_000), default=500, show_default=True)
@click.option("--stock", type=click.IntRange(1, 1_000_000), default=100, show_default=True)
@click.option("--spread", "spread_seconds", type=click.FloatRange(0.1, 600.0), default=3.0)
@click.option(
    "--window",
    "window_seconds",
    type=click.IntRange(6, 3_600),
    default=30,
    show_default=True,
    help="Seconds until a group ends (group_buy); outside embedded mode at least 120.",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/1"),
    show_default=True,
    help="Folder for report.json, history.jsonl.gz, locust.html and locust.log.",
)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
def run(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401  click gives each its type
    """
    Play a scenario and judge it.

    Exit codes: 0 PASS, 1 a threshold missed, 3 an invariant broken, 4 VOID (it
    measured nothing), 5 the target does not answer.
    """
    site = _find(given)
    options = LabOptions(
        run=secrets.token_hex(4),
        command=shlex.join(["doorbuster", *sys.argv[1:]]),
        **{name: given[name] for name in LabOptions.__slots__ if name in given},
    )
    report = _run(run_lab(site, options))
    if as_json:
        print_json(report_as_json(report))
    else:
        print_report(report)
    sys.exit(EXIT_CODES[report.grade])


@load.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_with_target
@click.option("--json", "as_json", is_flag=True)
def verify(*, out: Path, as_json: bool, **given: Any) -> None:  # noqa: ANN401  click's
    """Judge the orders of an earlier run as they are now."""
    equations = _run(verify_lab(_find(given), out))
    if as_json:
        print_json(equations_as_json(equations))
    else:
        print_equations(equations)
    sys.exit(EXIT_OF[verdict_of(equations)])


def _find(given: dict[str, Any]) -> Site:
    """Find the target: the options name it, or the run file of a data directory."""
    if given["url"] is not None:
        return _remote(given)
    try:
        run_file = read_run_file(given["data_dir"])
    except NotRunning as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.UNREACHABLE)
    return Site(
        public_url=run_file.public,
        admin_url=run_file.admin,
        admin_token=run_file.admin_token,
        sandbox_url=run_file.sandbox,
        signer=Signer.from_keys(run_file.auth_keys),
    )


def _remote(given: dict[str, Any]) -> Site:
    missing = [
        f"--{name.replace('_', '-')}"
        for name in ("admin_url", "admin_token", "auth_key_file")
        if given[name] is None
    ]
    if missing:
        raise click.MissingParameter(param_hint=missing, param_type="option")
    return Site(
        public_url=given["url"],
        admin_url=given["admin_url"],
        admin_token=given["admin_token"],
        sandbox_url=given["sandbox_url"],
        signer=Signer.from_base64url(given["auth_kid"], given["auth_key_file"].read_text().strip()),
    )


def _run(work: Awaitable[T]) -> T:
    """Run to the end, or leave with a sentence and the exit code that fits."""
    try:
        return asyncio.run(_await(work))
    except (Unreachable, NoAnswer) as error:
        click.echo(f"the target does not answer: {error}", err=True)
        sys.exit(Exit.UNREACHABLE)
    except LoadError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(Exit.FAILED)


async def _await(work: Awaitable[T]) -> T:
    return await work
