"""
A disk of a few megabytes that can be filled and emptied while a store writes to it.

It is a tmpfs in a mount namespace of its own (and a user namespace, unless we are root), so that
nothing of the machine changes and everything is gone with the process that holds it. A limit on
the size of files is no substitute: it kills the writer by a signal instead of failing its write.
"""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from app.embedded.account import OURSELVES
from app.embedded.programs import leashed
from app.embedded.supervisor import RoleSpec

HOLD: Final = (
    'mount -t tmpfs -o "size=$2,mode=0777" tmpfs "$1" && echo ready && exec sleep infinity'
)
# Who is not root stays who they are, for Postgres refuses to run as root of any namespace.
AS_USER: Final = () if os.geteuid() == 0 else ("-U", "--map-current-user", "--keep-caps")
BALLAST: Final = "ballast"
BLOCK: Final = b"\0" * 65_536


class NotAllowed(Exception):
    """The kernel refuses mounts or namespaces: the row cannot be run here."""


class SmallDisk:
    """
    One small disk, mounted on `folder` for those who enter it.

    Attributes:
        folder: where processes inside find it.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._megabytes = megabytes
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        argv = (
            "/usr/bin/env",
            "unshare",
            "-m",
            *AS_USER,
            "sh",
            "-c",
            HOLD,
            "sh",
            str(self.folder),
            f"{self._megabytes}m",
        )
        self._holder = subprocess.Popen(  # noqa: S603  a fixed script
            leashed(argv, orphan_signal=signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline().strip()
        if said != "ready":
            self.__exit__(None, None, None)
            raise NotAllowed(said)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._holder is not None
        assert self._holder.stdout is not None
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()

    @property
    def seen(self) -> Path:
        """The same folder as it is reached from outside."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/root{self.folder}")

    def inside(self, spec: RoleSpec) -> RoleSpec:
        """Let a role run where this disk is mounted; its account is taken on inside."""
        assert self._holder is not None
        enter = ["/usr/bin/env", "nsenter", "-t", str(self._holder.pid), "-m"]
        if AS_USER:
            enter += ["-U", "--preserve-credentials"]
        argv = leashed(spec.argv, account=spec.account, orphan_signal=spec.orphan_signal)
        return replace(spec, argv=(*enter, *argv), account=OURSELVES)

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all of it but so many bytes."""
        try:
            with (self.seen / BALLAST).open("wb", buffering=0) as ballast:
                while ballast.write(BLOCK):
                    pass
        except OSError:
            size = (self.seen / BALLAST).stat().st_size
            os.truncate(self.seen / BALLAST, max(0, size - leave_bytes))

    def empty(self) -> None:
        """Give back what was taken."""
        (self.seen / BALLAST).unlink()
