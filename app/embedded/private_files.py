"""Small JSON files that only their owner may read: written whole or not at all."""

import os
from pathlib import Path
from typing import TypeVar

import msgspec

Content = TypeVar("Content")


def write_private(path: Path, content: object) -> None:
    """
    Replace the file by the JSON of a dataclass, mode 0600.

    A reader sees the old content or the new; so does whoever comes after a crash.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_private(path: Path, kind: type[Content]) -> Content | None:
    """Read what `write_private` wrote; None when there is no file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
