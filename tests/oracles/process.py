"""An oracle as a process: one JSON document a line to it, one a line back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from tests.oracles import environment

ANSWER_SECONDS_MAX: Final = 30.0
LINE_BYTES_MAX: Final = 8_388_608


class Disagreed(Exception):
    """The oracle raised; says what."""


class Oracle:
    """Somebody else's SDK, to be asked."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, do: str, **told: Any) -> Any:
        """
        Let the oracle do something.

        Raises:
            Disagreed: it raised an exception of its own.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **told}).encode() + b"\n")
        await self._process.stdin.drain()
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            line = await self._process.stdout.readline()
        assert line, "the oracle has gone; its standard error says why"
        answer = json.loads(line)
        if "raised" in answer:
            raise Disagreed(answer["raised"])
        return answer["answer"]


@asynccontextmanager
async def open_oracle(name: str) -> AsyncIterator[Oracle]:
    """Start an oracle; without its environment the test is skipped, or fails where it must not."""
    try:
        python = environment.python_of(name)
    except environment.NoOracle as error:
        if environment.is_required():
            pytest.fail(str(error))
        pytest.skip(str(error))
    process = await asyncio.create_subprocess_exec(
        str(python),
        "-I",  # neither our packages nor the caller's environment
        str(environment.HERE / name / "oracle.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    try:
        yield Oracle(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
