"""`doorbuster migrate`: bring every database up to date."""

import asyncio
import json
import sys

import click

from app.cli.exits import Exit
from app.kernel.errors import BadConfiguration, Unavailable
from app.settings import read_settings, require
from app.storage.migrate import MigrationState, migrate_all


@click.group(invoke_without_command=True)
@click.option("--dry-run", is_flag=True, help="Tell what would be applied, apply nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def migrate(context: click.Context, *, dry_run: bool, as_json: bool) -> None:
    """Apply migrations to every shard and to the ledger."""
    if context.invoked_subcommand is None:
        _run(dry_run=dry_run, as_json=as_json)


@migrate.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def status(*, as_json: bool) -> None:
    """List every migration of every database."""
    _run(dry_run=True, as_json=as_json)


def _run(*, dry_run: bool, as_json: bool) -> None:
    try:
        states = asyncio.run(_migrate(dry_run=dry_run))
    except BadConfiguration as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.FAILED)
    except (Unavailable, OSError) as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.UNREACHABLE)
    if as_json:
        listed = [
            {"database": state.database, "version": state.version, "applied": state.applied}
            for state in states
        ]
        click.echo(json.dumps({"migrations": listed}))
        return
    new = "would be applied" if dry_run else "applied now"
    for state in states:
        click.echo(f"{state.database:10} {state.version:24} {'applied' if state.applied else new}")


async def _migrate(*, dry_run: bool) -> list[MigrationState]:
    settings = read_settings()
    require(settings, "DOORBUSTER_POSTGRES__SHARD_URLS", "DOORBUSTER_POSTGRES__LEDGER_URL")
    return await migrate_all(
        settings.postgres.shard_urls,
        settings.postgres.ledger_url,
        settings.redis.deployment,
        dry_run=dry_run,
    )
