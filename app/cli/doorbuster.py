"""
The command `doorbuster`: every sub-command, loaded when it is called.

A role must start in a fraction of a second and must not import what it does not
need, so each name leads to its module only when it is asked for.
"""

from importlib import import_module
from typing import Final

import click

COMMANDS: Final = {
    "up": "app.cli.up:up",
    "demo": "app.cli.demo:demo",
    "serve": "app.cli.roles:serve",
    "worker": "app.cli.roles:worker",
    "coordinator": "app.cli.roles:coordinator",
    "sandbox": "app.cli.roles:sandbox",
    "migrate": "app.cli.migrate:migrate",
    "token": "app.cli.token:token",
    "sale": "app.cli.sale:sale",
    "queue": "app.cli.queue:queue",
    "dead-letters": "app.cli.letters:dead_letters",
    "recover": "app.cli.recover:recover",
    "audit": "app.cli.audit:audit",
    "doctor": "app.cli.doctor:doctor",
    "config": "app.cli.configuration:config",
    "openapi": "app.cli.openapi:openapi",
    "version": "app.cli.configuration:version",
    "settle": "app.cli.settle:settle",
    "bank": "app.cli.bank:bank",
    "load": "app.cli.load:load",
}


class _Lazily(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  likewise
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command), place
        return command


@click.command(cls=_Lazily, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="doorbuster")
def main() -> None:
    """Doorbuster: never oversell, never lose an accepted order, books that balance."""
