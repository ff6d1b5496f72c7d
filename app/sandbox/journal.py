"""
The gateway's memory on disk: JSON lines, each a whole record, the last one counts.

An order cannot end while its payment's end is unknown, so a gateway that forgot
its payments would hold units for ever. Lines are handed to the kernel one by
one: they survive the process, which is what a sandbox is killed for, and not the
machine.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

import msgspec
import structlog

from app.sandbox.records import Record

_FILE: Final = "sandbox.jsonl"
_log = structlog.get_logger(__name__)


class Journal:
    """An append-only file of records; one process at a time writes it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / _FILE
        self._file: IO[bytes] | None = None
        self._encode = msgspec.json.Encoder().encode

    def read(self) -> list[Record]:
        """Return the last record of each key, in the order of their first lines."""
        latest: dict[tuple[type, str], Record] = {}
        if not self._path.exists():
            return []
        decode = msgspec.json.Decoder(Record).decode
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    record = decode(line)
                except msgspec.DecodeError as error:
                    # A process that was killed leaves half a line at the end.
                    _log.warning("journal_line_skipped", line=number, error=str(error))
                    continue
                latest[type(record), record.key] = record
        return list(latest.values())

    def begin(self, records: Iterable[Record]) -> None:
        """Start a new file with just these records, and append to it from now on."""
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            for record in records:
                file.write(self._encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        self._file = self._path.open("ab", buffering=0)

    def write(self, record: Record) -> None:
        """Append one record; it outlives this process from now on."""
        assert self._file is not None, "begin comes first"
        self._file.write(self._encode(record) + b"\n")

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
