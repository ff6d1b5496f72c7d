"""`doorbuster bank import / list / assign / send-back`: lines of a bank statement."""

import csv
import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import click
from rich.console import Console
from rich.table import Table

from app.cli.admin import AdminSite, with_admin
from app.cli.exits import Exit

COLUMNS: Final = ("reference", "amount_minor", "currency", "booked_at", "remark")
LINES_MAX: Final = 500  # of one request; a longer file is several
READABLE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def bank() -> None:
    """Import bank lines, and settle those that paid nothing by themselves."""


@bank.command("import")
@click.argument("file", type=READABLE)
@click.option("--reason", required=True, help="Why; it goes to the audit row.")
@click.option("--key", metavar="K", help="Idempotency key; else the file's own hash.")
@with_admin
def import_lines(*, file: Path, reason: str, key: str | None, **given: Any) -> None:  # noqa: ANN401  click's
    """
    Import FILE: CSV with a header, or a JSON list of the same names.

    The columns are reference, amount_minor, currency, booked_at (RFC 3339) and
    remark; others are left out. The same file again does nothing twice.
    """
    lines = read_lines(file)
    stem = key or hashlib.sha256(file.read_bytes()).hexdigest()[:48]
    site = AdminSite.find(given["data_dir"], given["admin_url"], given["admin_token"])
    told: list[dict[str, Any]] = []
    for start in range(0, len(lines), LINES_MAX):
        body = {"lines": lines[start : start + LINES_MAX], "reason": reason}
        part = f"{stem}-{start}" if start or key is None else stem
        told += site.ask("POST", "/admin/v1/bank-lines", body, part)["lines"]
    if given["as_json"]:
        click.echo(json.dumps({"lines": told}))
        return
    table = Table("reference", "outcome", "reason", "payment")
    for one in told:
        table.add_row(one["reference"], one["outcome"], one["reason"], one["payment_id"] or "")
    Console().print(table)


@bank.command("list")
@click.option("--state", type=click.Choice(["suspense", "matched", "returned"]))
@with_admin
def list_lines(*, state: str | None, **given: Any) -> None:  # noqa: ANN401  click's
    """List bank lines by reference."""
    site = AdminSite.find(given["data_dir"], given["admin_url"], given["admin_token"])
    query: dict[str, Any] = {"limit": 100} | ({} if state is None else {"state": state})
    items: list[dict[str, Any]] = []
    while True:
        page = site.ask("GET", f"/admin/v1/bank-lines?{urlencode(query)}")
        items += page["items"]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    if given["as_json"]:
        click.echo(json.dumps({"items": items}))
        return
    table = Table("reference", "amount", "currency", "state", "reason", "payment")
    for one in items:
        amount = str(one["amount_minor"])
        paid = one["payment_id"] or ""
        table.add_row(one["reference"], amount, one["currency"], one["state"], one["reason"], paid)
    Console().print(table)


@bank.command("assign")
@click.argument("line")
@click.argument("payment")
@click.option("--reason", required=True, help="Why; it goes to the audit row.")
@with_admin
def assign(*, line: str, payment: str, reason: str, **given: Any) -> None:  # noqa: ANN401  click's
    """Let LINE in suspense pay the open PAYMENT of its amount."""
    _settle(line, "assign", {"payment_id": payment, "reason": reason}, given)


@bank.command("send-back")
@click.argument("line")
@click.option("--reference", required=True, help="Of the transfer that took it back.")
@click.option("--reason", required=True, help="Why; it goes to the audit row.")
@with_admin
def send_back(*, line: str, reference: str, reason: str, **given: Any) -> None:  # noqa: ANN401  click's
    """Record that LINE in suspense was sent back."""
    _settle(line, "send-back", {"reference": reference, "reason": reason}, given)


def _settle(line: str, act: str, body: dict[str, Any], given: dict[str, Any]) -> None:
    site = AdminSite.find(given["data_dir"], given["admin_url"], given["admin_token"])
    told = site.ask("POST", f"/admin/v1/bank-lines/{quote(line, safe='')}/{act}", body)
    click.echo(json.dumps(told) if given["as_json"] else f"{line} is {told['state']}")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read a statement, or leave with a sentence that says what is wrong with it."""
    try:
        text = file.read_text("utf-8-sig")
        if file.suffix.lower() == ".json":
            rows = json.loads(text)
            return [{name: row[name] for name in COLUMNS if name in row} for row in rows]
        return [_of_csv(row) for row in csv.DictReader(text.splitlines())]
    except (ValueError, KeyError, TypeError) as error:
        click.echo(f"{file}: not a statement: {type(error).__name__} {error}", err=True)
        sys.exit(Exit.USAGE)


def _of_csv(row: dict[str, str]) -> dict[str, Any]:
    line: dict[str, Any] = {name: row[name] for name in COLUMNS[:-1]}
    return {**line, "amount_minor": int(row["amount_minor"]), "remark": row.get("remark") or ""}
