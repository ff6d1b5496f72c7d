"""`doorbuster dead-letters list / retry / drop`."""

import json
from typing import Any
from urllib.parse import urlencode

import click
from rich.console import Console
from rich.table import Table

from app.cli.admin import AdminSite, with_admin

KINDS = click.Choice(["order", "outbox", "callback", "ledger"])


@click.group("dead-letters")
def dead_letters() -> None:
    """List, drop or retry what could not be done."""


@dead_letters.command("list")
@click.option("--kind", type=KINDS)
@click.option("--sale", metavar="S")
@click.option("--reason", metavar="R", help="Only letters with this reason.")
@with_admin
def list_letters(
    *,
    kind: str | None,
    sale: str | None,
    reason: str | None,
    **given: Any,  # noqa: ANN401  click's
) -> None:
    """List waiting letters, oldest first."""
    site = AdminSite.find(given["data_dir"], given["admin_url"], given["admin_token"])
    wanted = {"kind": kind, "sale": sale, "reason": reason}
    query = urlencode({"limit": 100} | {name: value for name, value in wanted.items() if value})
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = site.ask("GET", f"/admin/v1/dead-letters?{query}{cursor}")
        items += page["items"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    if given["as_json"]:
        click.echo(json.dumps({"items": items}))
        return
    table = Table("letter", "kind", "reason", "sale", "units", "parked", "detail")
    for one in items:
        table.add_row(
            one["letter_id"],
            one["kind"],
            one["reason"],
            one["sale"] or "",
            "" if one["units"] is None else str(one["units"]),
            one["parked_at"],
            json.dumps(one["detail"]),
        )
    Console().print(table)


def _act(name: str, meaning: str) -> click.Command:
    @click.command(name, help=meaning)
    @click.option("--kind", type=KINDS)
    @click.option("--sale", metavar="S")
    @click.option("--letter-reason", metavar="R", help="Only letters with this reason.")
    @click.option("--letter", "letters", multiple=True, metavar="ID", help="This one; more.")
    @click.option("--reason", required=True, help="Why; it goes to the audit row.")
    @click.option("--dry-run", is_flag=True, help="Count, change nothing.")
    @with_admin
    def act(*, letters: tuple[str, ...], **given: Any) -> None:  # noqa: ANN401  click's
        site = AdminSite.find(
            given.pop("data_dir"), given.pop("admin_url"), given.pop("admin_token")
        )
        as_json = given.pop("as_json")
        body = {key: value for key, value in given.items() if value is not None}
        document = site.ask(
            "POST", f"/admin/v1/dead-letters/{name}", {**body, "letters": list(letters)}
        )
        if as_json:
            click.echo(json.dumps(document))
            return
        would = "would be touched" if document["dry_run"] else "touched"
        click.echo(f"{document['letters']} letters {would}")

    return act


dead_letters.add_command(_act("drop", "Take letters off the list for good."))
dead_letters.add_command(_act("retry", "Try facts again; letters of orders are final."))
