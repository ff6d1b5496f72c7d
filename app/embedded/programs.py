"""Run a program at the end of our leash, with its output in a log."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from app.embedded import leash
from app.embedded.account import OURSELVES, Account
from app.embedded.errors import RoleDidNotStart

LOG_BYTES_MAX: Final = 16 * 1024 * 1024  # above this a log is set aside when its program starts
LOG_TAIL_BYTES: Final = 600  # enough for the line that names the trouble
RUN_WAIT_SECONDS: Final = 120.0  # initdb takes 0.6 s; a slow disk syncs 900 files


def leashed(
    argv: Sequence[str], *, account: Account = OURSELVES, orphan_signal: signal.Signals
) -> tuple[str, ...]:
    """Give the command line of a program that gets `orphan_signal` when this process is gone."""
    python = (sys.executable, "-I", "-S", str(leash.__file__))
    numbers = (os.getpid(), int(orphan_signal), account.uid, account.gid)
    return (*python, *map(str, numbers), *argv)


async def run_to_end(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    account: Account = OURSELVES,
    words: str = "",
) -> None:
    """
    Run a program and wait until it has ended well.

    Args:
        argv: the program by its absolute path, and its arguments.
        env: its whole environment.
        log: gets what it prints.
        account: who runs it.
        words: what it reads from its standard input.

    Raises:
        RoleDidNotStart: it ended with another status than 0.
        TimeoutError: it did not end in time, and was killed.
    """
    with open_log(log) as output:
        process = await asyncio.create_subprocess_exec(
            *leashed(argv, account=account, orphan_signal=signal.SIGKILL),
            env=dict(env),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(RUN_WAIT_SECONDS):
            await process.communicate(words.encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        name = Path(argv[0]).name
        raise RoleDidNotStart(role=name, reason=last_words(log), log=log, status=process.returncode)


def open_log(path: Path) -> BinaryIO:
    """Append to a log (0600); what has grown too big is set aside as `<name>.1`."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(f"{path.name}.1"))
    path.touch(mode=0o600)
    return path.open("ab")


def last_words(log: Path) -> str:
    """Tell the end of a log, for the sentence that says why a program failed."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace").strip()
