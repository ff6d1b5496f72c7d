"""
The environments that oracles run in: one for each folder here that has a lock file.

An oracle is somebody else's SDK. It is installed from its own hash-locked list into
its own environment under `.oracles/`, never into ours, and is spoken to as a process.
`make oracles` builds what is missing; `make test` does so first.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = HERE.parent.parent / ".oracles"
REQUIRE: Final = "REQUIRE_EVERY_ORACLE"
BUILD_SECONDS_MAX: Final = 300


class NoOracle(Exception):
    """An environment is not there; says why, and how to get it."""


def names() -> list[str]:
    """Return every oracle, in alphabetical order."""
    return sorted(lock.parent.name for lock in HERE.glob("*/requirements.lock"))


def python_of(name: str) -> Path:
    """
    Return the interpreter of an oracle's environment.

    Raises:
        NoOracle: it was not built, or not from this lock file.
    """
    stamp = ENVIRONMENTS / name / "built-from"
    if not stamp.is_file() or stamp.read_text() != _lock_hash(name):
        message = f"the oracle `{name}` is not built: run `make oracles` (it needs a package index)"
        raise NoOracle(message)
    return ENVIRONMENTS / name / "bin" / "python"


def is_required() -> bool:
    """Whether a missing oracle is a failure here, as on the build server, and not a skip."""
    return bool(os.environ.get(REQUIRE))


def build(name: str) -> None:
    """
    Build an oracle's environment, unless it is there.

    Raises:
        NoOracle: it could not be built; nothing is left of the try.
    """
    try:
        python_of(name)
    except NoOracle:
        _build(name)


def _build(name: str) -> None:
    place = ENVIRONMENTS / name
    lock = HERE / name / "requirements.lock"
    python = place / "bin" / "python"
    install = (
        "install",
        "-q",
        "--no-compile",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "-r",
        str(lock),
    )
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(place))
        _run(str(python), "-m", "pip", "--disable-pip-version-check", *install)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(place, ignore_errors=True)
        told = getattr(error, "stderr", None) or str(error)
        message = f"the oracle `{name}` cannot be built: {told.strip()[-400:]}"
        raise NoOracle(message) from error
    (place / "built-from").write_text(_lock_hash(name))


def _run(*command: str) -> None:
    subprocess.run(  # noqa: S603  our own interpreter and our own lock file
        command, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX
    )


def _lock_hash(name: str) -> str:
    lock = (HERE / name / "requirements.lock").read_bytes()
    return hashlib.sha256(lock + sys.version.encode()).hexdigest()


def main() -> int:
    """Build every oracle; what cannot be built is told aloud, and fails where all are required."""
    missing = 0
    for name in names():
        try:
            build(name)
        except NoOracle as error:
            missing += 1
            sys.stderr.write(f"{error}\n  Its tests will be skipped.\n")
    return 1 if missing and is_required() else 0


if __name__ == "__main__":
    sys.exit(main())
