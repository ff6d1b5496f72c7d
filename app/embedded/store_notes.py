"""`<data-dir>/stores.json`: what the embedded stores must find again at the next start."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.embedded.private_files import read_private, write_private

STORE_NOTES_NAME: Final = "stores.json"


def new_password() -> str:
    """192 random bits that need no escaping in a URL, a configuration file or a shell."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreNotes:
    """
    Passwords, ports and places of the stores of one data directory.

    Attributes:
        valkey_port, postgres_port: of the last run; 0 before the first.
        postgres_folder: where Postgres keeps its files; outside of the data directory when that
            lies where the account that runs Postgres may not go; empty before the first run.
    """

    redis_admin_password: str = field(default_factory=new_password)
    redis_api_password: str = field(default_factory=new_password)
    postgres_password: str = field(default_factory=new_password)
    valkey_port: int = 0
    postgres_port: int = 0
    postgres_folder: str = ""


def read_notes(data_dir: Path) -> StoreNotes:
    """Give the notes of the last run, or fresh ones."""
    return read_private(data_dir / STORE_NOTES_NAME, StoreNotes) or StoreNotes()


def write_notes(data_dir: Path, notes: StoreNotes) -> None:
    """Note for the next start."""
    write_private(data_dir / STORE_NOTES_NAME, notes)
