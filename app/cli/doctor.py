"""`doorbuster doctor`: look at the machine and at everything the service needs."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from app.cli.finding import Finding, Health, exit_of, well
from app.cli.machine_checks import check_machine
from app.cli.output import print_json, results
from app.cli.store_checks import check_stores
from app.cli.stores import StoreUrls, find_stores, run_or_leave, store_options
from app.embedded.errors import NotRunning

_STYLES: Final = {
    Health.OK: "green",
    Health.WARN: "yellow",
    Health.FAIL: "bold red",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@store_options
def doctor(*, as_json: bool, data_dir: Path, **where: Any) -> None:  # noqa: ANN401  store_options
    """
    Check the machine and every dependency, one line each, with a fix.

    Exit codes: 0 nothing stands in the way, 1 something is set up wrongly, 5
    something that is needed does not answer.
    """

    async def examine() -> list[Finding]:
        return await _examine(data_dir, where)

    findings = run_or_leave(examine)
    code = exit_of(findings)
    if as_json:
        print_json({"exit_code": code, "findings": [asdict(finding) for finding in findings]})
    else:
        print_findings(findings)
    sys.exit(code)


async def _examine(data_dir: Path, where: dict[str, Any]) -> list[Finding]:
    """Look at the machine first; at the stores only if there are any to look at."""
    try:
        urls = find_stores(data_dir, **where)
    except NotRunning as error:
        told = Finding("service", Health.WARN, str(error), "doorbuster up")
        return [*check_machine(data_dir, runs=False), told]
    runs = urls.admin is not None
    return [
        *check_machine(data_dir, runs=runs),
        _where(data_dir, urls),
        *[finding async for finding in check_stores(urls)],
    ]


def _where(data_dir: Path, urls: StoreUrls) -> Finding:
    if urls.admin is None:
        return well("stores", "as given by flags, environment or doorbuster.toml")
    return well("run.json", f"a service runs from {data_dir}")


def print_findings(findings: Sequence[Finding]) -> None:
    """Print a line for each finding, and its fix below it."""
    console = results()
    for finding in findings:
        line = Text(f"{finding.health:5}", style=_STYLES[finding.health])
        line.append(f" {finding.what:18} {finding.found}", style="default")
        console.print(line, soft_wrap=True)
        if finding.fix:
            console.print(Text(f"{'':25}fix: {finding.fix}", style="dim"), soft_wrap=True)
