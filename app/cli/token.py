"""`doorbuster token`: shopper tokens for tests and load, one a line."""

import json
import sys
import time
from pathlib import Path

import click

from app.admission.settings import read_token_keys
from app.admission.tokens import ShopperTokens
from app.cli.exits import Exit
from app.embedded.run_file import read_run_file
from app.kernel.errors import BadConfiguration, DoorbusterError
from app.settings import read_settings


@click.command()
@click.option("--shopper", required=True, metavar="ID", help="1 to 64 of 0-9 A-Z a-z _ . : -")
@click.option("--count", type=click.IntRange(1, 1_000_000), help="Many: ID-0, ID-1, …")
@click.option("--ttl", type=click.IntRange(1, 86_400), default=3_600, show_default=True)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".doorbuster"),
    show_default=True,
)
def token(*, shopper: str, count: int | None, ttl: int, data_dir: Path) -> None:
    """
    Make tokens for the service that runs on a data directory.

    Refused when a key is configured by the environment: such keys are a real
    deployment's, and only its own identity service speaks for its shoppers.
    """
    try:
        if read_settings().auth.keys:
            click.echo("a production key source is configured; make no tokens with it", err=True)
            sys.exit(Exit.FAILED)
        keys = read_token_keys(json.dumps(_keys_of(data_dir)))
    except BadConfiguration as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.FAILED)
    except DoorbusterError as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.UNREACHABLE)
    tokens = ShopperTokens(keys)
    now = time.time()
    try:
        if count is None:
            click.echo(tokens.mint(shopper, ttl, now))
            return
        for number in range(count):
            name = f"{shopper}-{number}"
            click.echo(f"{name} {tokens.mint(name, ttl, now)}")
    except ValueError as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.USAGE)


def _keys_of(data_dir: Path) -> list[dict[str, str]]:
    keys = read_run_file(data_dir).auth_keys
    return [{"kid": key.kid, "alg": key.alg, "key": key.key, "use": key.use} for key in keys]
