"""Call the command line as a user does, in a folder where nothing runs."""

from click.testing import CliRunner, Result

from app.cli.doorbuster import main


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, arguments)
