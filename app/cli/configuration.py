"""`doorbuster config show`, `openapi`, `version`: what this program is and how it is set."""

import json
import sys
from importlib.metadata import version as version_of

import click

from app.cli.exits import Exit
from app.kernel.errors import BadConfiguration
from app.settings import describe, read_settings


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def show(*, as_json: bool) -> None:
    """Print every setting as it is now; secrets as <secret>."""
    try:
        settings = dict(describe(read_settings()))
    except BadConfiguration as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.FAILED)
    if as_json:
        click.echo(json.dumps(settings, default=str))
        return
    for name, value in settings.items():
        click.echo(f"{name}={value}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def version(*, as_json: bool) -> None:
    """Print the version."""
    number = version_of("doorbuster")
    click.echo(json.dumps({"version": number}) if as_json else number)
