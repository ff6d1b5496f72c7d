"""Commands that print one JSON document and may take their time, played to their end."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tests.journeys.service import start_program

RUN_SECONDS_MAX = 120.0  # half a minute on a calm machine


class Finished(NamedTuple):
    """How a command ended; `said` is the end of its stderr."""

    exit: int
    report: dict[str, Any]
    said: str


def run(*arguments: str, cwd: Path) -> Finished:
    """Run a command that prints one JSON document, if any, and may take its time."""
    process = start_program(*arguments, cwd=cwd)
    try:
        printed, _ = process.communicate(timeout=RUN_SECONDS_MAX)
    finally:
        process.kill()
    said = (cwd / f"{arguments[0]}.err").read_text()[-2_000:]
    return Finished(process.returncode, json.loads(printed) if printed else {}, said)
