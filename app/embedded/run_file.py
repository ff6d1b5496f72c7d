"""
`<data-dir>/run.json`: what a running `doorbuster up` tells the other commands.

It is written when the service serves and after each restart, and removed on a clean stop. One that
was left behind by a killed supervisor is recognised by the lock, which is free then.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.embedded.errors import NotRunning
from app.embedded.lock import is_alive, is_locked
from app.embedded.private_files import read_private, write_private
from app.embedded.run_secrets import AuthKey

RUN_FILE_NAME: Final = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pids:
    """Process ids by role; None for a store that runs somewhere else."""

    supervisor: int
    valkey: int | None
    postgres: int | None
    coordinator: int
    api: tuple[int, ...]
    worker: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """
    Where everything of one running service is, and the keys to it.

    Attributes:
        public, admin, sandbox: base URLs, without a slash at the end.
        redis, redis_api: the same server as two users.
        shards: in the order of the shard map.
        auth_keys: for `doorbuster token`.
        data_dir: absolute.
    """

    public: str
    admin: str
    admin_token: str
    sandbox: str
    redis: str
    redis_api: str
    shards: tuple[str, ...]
    ledger: str
    pids: Pids
    auth_keys: tuple[AuthKey, ...]
    data_dir: str


def write_run_file(run: RunFile) -> None:
    """Tell the other commands, mode 0600."""
    write_private(Path(run.data_dir) / RUN_FILE_NAME, run)


def remove_run_file(data_dir: Path) -> None:
    """Tell the other commands that nothing runs here any more."""
    (data_dir / RUN_FILE_NAME).unlink(missing_ok=True)


def read_run_file(data_dir: Path) -> RunFile:
    """
    Find the service that runs on a data directory.

    Raises:
        NotRunning: there is none, or only the file of one that was killed.
    """
    run = read_private(data_dir / RUN_FILE_NAME, RunFile)
    if run is None:
        raise NotRunning(data_dir=data_dir, is_stale=False)
    if not is_alive(run.pids.supervisor) or not is_locked(data_dir):
        raise NotRunning(data_dir=data_dir, is_stale=True)
    return run
