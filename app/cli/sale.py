"""`doorbuster sale …`: create, look, publish, pause, resume, close, restock."""

import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table

from app.cli.admin import AdminSite, with_admin


@click.group()
def sale() -> None:
    """Set up and steer sales."""


@sale.command()
@click.option("--title", required=True)
@click.option("--stock", type=int, required=True, help="Units to sell.")
@click.option("--price-minor", type=int, required=True, help="In the currency's minor unit.")
@click.option("--id", "sale_id", help="1 to 40 of a-z, 0-9 and -; made from the title otherwise.")
@click.option("--sku")
@click.option("--merchant")
@click.option("--currency")
@click.option("--limit", "limit_per_shopper", type=int, help="Units one shopper may take.")
@click.option("--opens-at", help="RFC 3339, with a zone; otherwise now.")
@click.option("--closes-at", help="RFC 3339, with a zone; otherwise a day later.")
@click.option("--pay-within-seconds", type=int)
@click.option("--buckets", type=int)
@click.option("--idempotency-key", help="Repeat it to make a retry the same request.")
@with_admin
def create(*, sale_id: str | None, idempotency_key: str | None, **given: Any) -> None:  # noqa: ANN401  click's
    """Create a sale as a draft."""
    site, as_json = _site(given)
    body = {name: value for name, value in given.items() if value is not None}
    if sale_id is not None:
        body["id"] = sale_id
    key = idempotency_key or secrets.token_urlsafe(16)
    document = site.ask("POST", "/admin/v1/sales", body, key)
    _show(document, as_json=as_json)
    for warning in document.get("warnings", []):
        click.echo(f"warning: {warning}", err=True)


@sale.command("list")
@with_admin
def list_sales(**given: Any) -> None:  # noqa: ANN401  click's
    """List every sale, newest first."""
    site, as_json = _site(given)
    items: list[dict[str, Any]] = []
    following = "/admin/v1/sales?limit=100"
    while following:
        page = site.ask("GET", following)
        items += page["items"]
        following = f"/admin/v1/sales?limit=100&cursor={page['next']}" if page["next"] else ""
    if as_json:
        click.echo(json.dumps({"items": items}))
        return
    table = Table("sale", "state", "stock", "pool", "price", "opens", "closes")
    for one in items:
        price = f"{one['price_minor']} {one['currency']}"
        stock, pool = str(one["stock_total"]), str(one["pool"])
        table.add_row(
            one["id"], one["state"], stock, pool, price, one["opens_at"], one["closes_at"]
        )
    Console().print(table)


@sale.command()
@click.argument("sale_id")
@with_admin
def show(*, sale_id: str, **given: Any) -> None:  # noqa: ANN401  click's
    """Show a sale and where its units are."""
    site, as_json = _site(given)
    document = site.ask("GET", _place(sale_id))
    document["stock"] = site.ask("GET", f"{_place(sale_id)}/stock")
    _show(document, as_json=as_json)


def _change(event: str, meaning: str) -> click.Command:
    @click.command(event, help=meaning)
    @click.argument("sale_id")
    @click.option("--reason")
    @with_admin
    def change(*, sale_id: str, reason: str | None, **given: Any) -> None:  # noqa: ANN401  click's
        site, as_json = _site(given)
        body = {} if reason is None else {"reason": reason}
        document = site.ask("POST", f"{_place(sale_id)}/{event}", body)
        _show(document, as_json=as_json)

    return change


for _event, _meaning in (
    ("publish", "Let a draft sell from its opening on."),
    ("pause", "Stop selling; replays are still answered."),
    ("resume", "Sell again."),
    ("close", "End a sale for good."),
):
    sale.add_command(_change(_event, _meaning))


@sale.command()
@click.argument("sale_id")
@click.option("--units", type=int, required=True)
@click.option("--reason", required=True)
@click.option("--idempotency-key", help="Repeat it to make a retry the same request.")
@with_admin
def restock(
    *,
    sale_id: str,
    units: int,
    reason: str,
    idempotency_key: str | None,
    **given: Any,  # noqa: ANN401  click's
) -> None:
    """Add units while a sale runs."""
    site, as_json = _site(given)
    key = idempotency_key or secrets.token_urlsafe(16)
    body = {"units": units, "reason": reason}
    _show(site.ask("POST", f"{_place(sale_id)}/restock", body, key), as_json=as_json)


def _place(sale_id: str) -> str:
    """Write the address of a sale; whatever was typed names one sale and nothing else."""
    return f"/admin/v1/sales/{quote(sale_id, safe='')}"


def _site(given: dict[str, Any]) -> tuple[AdminSite, bool]:
    """Take the options of with_admin out of what click gave."""
    data_dir: Path = given.pop("data_dir")
    site = AdminSite.find(data_dir, given.pop("admin_url"), given.pop("admin_token"))
    return site, bool(given.pop("as_json"))


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document))
        return
    table = Table(show_header=False)
    for name, value in document.items():
        if isinstance(value, dict):
            for inner, units in value.items():
                if not isinstance(units, list):
                    table.add_row(f"{name}.{inner}", str(units))
        elif value not in (None, []):
            table.add_row(name, str(value))
    Console().print(table)
