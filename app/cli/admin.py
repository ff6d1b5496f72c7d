"""
Ask a running service's admin listener, for the commands that operators type.

Where it is and how to open it comes from run.json of a data directory, or from
`--admin-url` and the environment variable DOORBUSTER_ADMIN_TOKEN.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import click

from app.cli.exits import Exit
from app.embedded.run_file import read_run_file
from app.kernel.errors import DoorbusterError

ANSWER_SECONDS: Final = 15.0
Command = TypeVar("Command", bound=Callable[..., Any])


def with_admin(command: Command) -> Command:
    """Let a command say which service it talks to, and how it prints."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option(
            "--admin-token",
            envvar="DOORBUSTER_ADMIN_TOKEN",
            metavar="T",
            help="For --admin-url; better in the environment.",
        ),
        click.option("--admin-url", metavar="U", help="The admin listener; else run.json tells."),
        click.option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(".doorbuster"),
            show_default=True,
            help="Where `doorbuster up` keeps its data.",
        ),
    ):
        command = option(command)
    return command


class AdminSite:
    """The admin listener of one service."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    @classmethod
    def find(cls, data_dir: Path, admin_url: str | None, admin_token: str | None) -> "AdminSite":
        """Find it, or leave with a sentence that says what is missing."""
        if admin_url is not None:
            if not admin_token:
                click.echo("--admin-url needs --admin-token or DOORBUSTER_ADMIN_TOKEN", err=True)
                sys.exit(Exit.USAGE)
            return cls(admin_url, admin_token)
        try:
            run = read_run_file(data_dir)
        except DoorbusterError as error:
            click.echo(str(error), err=True)
            sys.exit(Exit.UNREACHABLE)
        return cls(run.admin, run.admin_token)

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Any:  # noqa: ANN401  the document of the route
        """
        Send one request and return the document of its answer.

        Leaves with 5 if nobody answers, with 1 and the refusal's words if refused.
        """
        try:
            status, document = asyncio.run(self._send(method, path, body, idempotency_key))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            click.echo(f"{self._url} does not answer: {error or type(error).__name__}", err=True)
            sys.exit(Exit.UNREACHABLE)
        if status >= 400:
            click.echo(_refusal(status, document), err=True)
            sys.exit(Exit.FAILED)
        return document

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, idempotency_key: str | None
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self._token}"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, self._url + path, json=body) as response,
        ):
            text = await response.text()
            return response.status, json.loads(text) if text else None


def _refusal(status: int, document: Any) -> str:  # noqa: ANN401  whatever was answered
    if not isinstance(document, dict):
        return f"refused with {status}"
    told = f"{document.get('code', status)}: {document.get('detail', '')}"
    faults = [f"  {one['path']}: {one['message']}" for one in document.get("errors", [])]
    return "\n".join([told, *faults])
