"""
One running Doorbuster per data directory.

The lock is an flock on `<data-dir>/lock`. Every process started on the directory inherits the
descriptor, so the lock is free only when the last of them has gone: a supervisor that was killed
cannot be followed by another while its Postgres still writes.
"""

import asyncio
import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Self

from app.embedded.errors import DataDirInUse

LOCK_NAME: Final = "lock"
LAST_CHILD_WAIT_SECONDS: Final = 10.0  # Postgres asks its own children twice, 5 s apart
LOOK_AGAIN_SECONDS: Final = 0.02


def is_alive(pid: int) -> bool:
    """Whether a process with this number exists, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class DataDirLock:
    """The right to write in a data directory, and the directory itself."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """To be inherited by every process that writes in the directory."""
        assert self._descriptor >= 0
        return self._descriptor

    async def __aenter__(self) -> Self:
        """
        Make the directory if needed and lock it.

        Raises:
            DataDirInUse: a living process has it, or what a dead one started does not end.
        """
        # 0711: an account that runs Postgres for root passes through; every secret file is 0600.
        self.data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self.data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            await self._take()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        os.ftruncate(self._descriptor, 0)
        self._close()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAST_CHILD_WAIT_SECONDS
        while not _try_lock(self._descriptor):
            holder = os.pread(self._descriptor, 32, 0).decode()
            if loop.time() > deadline or (holder and is_alive(int(holder))):
                raise DataDirInUse(data_dir=self.data_dir, holder=holder)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


def is_locked(data_dir: Path) -> bool:
    """Whether any process holds the directory."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True
