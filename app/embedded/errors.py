"""
What can go wrong while a whole Doorbuster is started on one machine.

DoorbusterError
├── Unavailable
│   ├── RoleDidNotStart    a process ended, or did not serve in time
│   └── NotRunning         no `doorbuster up` serves from this data directory
├── DataDirInUse           another process has the data directory
├── PortTaken              somebody else listens on a port we were told to use
└── PostgresFolderLost     the note in the data directory points to nothing
"""

from pathlib import Path

from app.kernel.errors import DoorbusterError, Unavailable


class RoleDidNotStart(Unavailable):
    """
    A process ended or did not serve in time.

    `status` is how it ended: an exit code, a negative signal number, None while it still runs.
    """

    def __init__(self, *, role: str, reason: str, log: Path, status: int | None) -> None:
        self.role, self.reason, self.log, self.status = role, reason, log, status
        super().__init__(role=role, reason=reason, log=log)

    def _message(self) -> str:
        return f"{self.role} did not start: {self.reason}. Its log: {self.log}"


class NotRunning(Unavailable):
    """No `doorbuster up` serves from this data directory."""

    def __init__(self, *, data_dir: Path, is_stale: bool) -> None:
        self.data_dir, self.is_stale = data_dir, is_stale
        super().__init__(data_dir=data_dir, is_stale=is_stale)

    def _message(self) -> str:
        left = " (run.json was left behind by one that was killed)" if self.is_stale else ""
        return f"No doorbuster runs in {self.data_dir}{left}; start one with `doorbuster up`."


class DataDirInUse(DoorbusterError):
    """Another process has the data directory."""

    def __init__(self, *, data_dir: Path, holder: str) -> None:
        self.data_dir, self.holder = data_dir, holder
        super().__init__(data_dir=data_dir, holder=holder)

    def _message(self) -> str:
        return (
            f"The data directory {self.data_dir} is in use by process {self.holder or 'unknown'}; "
            "stop that one, or choose another with --data-dir."
        )


class PortTaken(DoorbusterError):
    """Somebody else listens on a port we were told to use."""

    def __init__(self, *, port: int, option: str) -> None:
        self.port, self.option = port, option
        super().__init__(port=port, option=option)

    def _message(self) -> str:
        return (
            f"Port {self.port} is taken by another program; stop that program, "
            f"or choose another port with {self.option} (0 picks a free one)."
        )


class PostgresFolderLost(DoorbusterError):
    """The note in the data directory points to a Postgres folder that is gone."""

    def __init__(self, *, data_dir: Path, folder: Path) -> None:
        self.data_dir, self.folder = data_dir, folder
        super().__init__(data_dir=data_dir, folder=folder)

    def _message(self) -> str:
        return (
            f"The Postgres files of {self.data_dir} were in {self.folder}, which is gone. "
            "Bring the folder back, or begin anew with another --data-dir."
        )
