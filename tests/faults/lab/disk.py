"""
What happens to Valkey's append-only file while the server is down.

Source:
    Valkey documentation, Persistence: a manifest names one base file and incremental files; the
    last incremental file is the one that is being written.
"""

import shutil
from pathlib import Path
from typing import Final

FOLDER: Final = "appendonlydir"


def last_log(valkey_folder: Path) -> Path:
    """Find the file that was being written."""
    files = (valkey_folder / FOLDER).glob("*.incr.aof")
    return max(files, key=lambda path: int(path.name.split(".")[-3]))


def cut_tail(valkey_folder: Path, bytes_max: int) -> int:
    """Lose the end of the log, as a disk does that lied about syncing; tell how many bytes."""
    log = last_log(valkey_folder)
    size = log.stat().st_size
    lost = min(bytes_max, size)
    with log.open("r+b") as file:
        file.truncate(size - lost)
    return lost


def spoil_middle(valkey_folder: Path) -> None:
    """Overwrite the beginning of a command in the middle of the log."""
    log = last_log(valkey_folder)
    content = log.read_bytes()
    at = content.index(b"\r\n*", len(content) // 2) + 2
    log.write_bytes(content[:at] + b"\xff" * 8 + content[at + 8 :])


def remove_all(valkey_folder: Path) -> None:
    """Lose every file of the server's data."""
    shutil.rmtree(valkey_folder / FOLDER)
