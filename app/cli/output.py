"""
How the commands print: tables for people, one JSON document for programs.

Results go to stdout, everything else to stderr. Rich honours NO_COLOR and leaves
colours and width alone where stdout is no terminal.
"""

import json
import sys
from typing import Any, Final

import click
from rich.console import Console

WIDTH_OF_A_FILE: Final = 160  # a terminal's width is its own; a log line may be longer than 80


def results() -> Console:
    """Give the console that writes to stdout."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)


def print_json(document: Any) -> None:  # noqa: ANN401  whatever JSON can hold
    """Print one document."""
    click.echo(json.dumps(document, ensure_ascii=False))


def tell(sentence: str) -> None:
    """Say something beside the result."""
    click.echo(sentence, err=True)
