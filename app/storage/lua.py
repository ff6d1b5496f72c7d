"""
Read lua/, resolve includes, parse headers, call scripts.

A script is known by its path, "orders/place_orders". Its text may hold the literal
`@incarnation@`, the name of the server it may run on; binding it gives the text that is loaded
and the SHA by which it is called. Only the coordinator loads. Callers compute the same SHA
without the server, and a server that does not know it is not the server they were told of: that
is `ScriptMissing`, and it means recovery, never "load and try again".
"""

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from app.kernel.errors import BadConfiguration
from app.storage.keys import BucketKeys
from app.storage.redis import RedisArgument, call_once, redis_errors

LUA_ROOT: Final = Path(__file__).resolve().parents[2] / "lua"

SHEBANG: Final = re.compile(r"#!lua(?: flags=([a-z,-]+))?")
INCARNATION_LITERAL: Final = "@incarnation@"

_INCARNATION: Final = re.compile(r"[0-9a-f]{16}")
_INCLUDE: Final = re.compile(r"^--- @include ([a-z_]+)\n", re.MULTILINE)
_KEY_LINE: Final = re.compile(r"---   (\w+) +(\w+) +(\S+) +(\S.*)")
_ARGUMENT_LINE: Final = re.compile(r"---   (\w+) +(\w+) +(\S.*)")
_CODE_LINE: Final = re.compile(r"---   ([A-Z_]+) +(-?\d+) +(\S.*)")
_SECTION_LINE: Final = re.compile(r"--- (KEYS|ARGV|RETURNS)\b.*")


class ScriptKey(NamedTuple):
    """One line of KEYS."""

    name: str
    redis_type: str
    pattern: str
    meaning: str


class ScriptArgument(NamedTuple):
    """One line of ARGV."""

    name: str
    kind: str
    meaning: str


class AnswerCode(NamedTuple):
    """One line of RETURNS."""

    name: str
    number: int
    detail: str


@dataclass(frozen=True, slots=True)
class BoundScript:
    """A script as one incarnation of a server knows it."""

    path: str
    text: str
    sha: str
    key_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScriptSource:
    """A script as its file says it, includes resolved."""

    path: str  # "<stage>/<name>"
    text: str
    flags: tuple[str, ...]
    keys: tuple[ScriptKey, ...]
    arguments: tuple[ScriptArgument, ...]
    codes: tuple[AnswerCode, ...]

    @property
    def name(self) -> str:
        """The verb and the noun, without the stage."""
        return self.path.rpartition("/")[2]

    def bind(self, incarnation: str | None = None) -> BoundScript:
        """
        Give the text and SHA for one incarnation of a server.

        Args:
            incarnation: 16 hex digits; needed only by a script that holds the literal.
        """
        text = self.text
        if INCARNATION_LITERAL in text:
            assert incarnation is not None, f"{self.path} runs on one incarnation only"
            assert _INCARNATION.fullmatch(incarnation), incarnation
            text = text.replace(INCARNATION_LITERAL, incarnation)
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return BoundScript(self.path, text, sha, tuple(key.name for key in self.keys))


@cache
def read_script(path: str) -> ScriptSource:
    """
    Read lua/<path>.lua with its includes and its header.

    Raises:
        BadConfiguration: the header or an include is not as docs/STYLE.md asks.
    """
    return parse_script(path, (LUA_ROOT / f"{path}.lua").read_text(encoding="utf-8"))


def parse_script(path: str, text: str) -> ScriptSource:
    """
    Resolve the includes of a script's text and read its header.

    Raises:
        BadConfiguration: the header or an include is not as docs/STYLE.md asks.
    """
    shebang = SHEBANG.fullmatch(text.partition("\n")[0])
    if shebang is None:
        raise BadConfiguration(script=path, reason="line 1 is not the shebang")
    sections = _header_sections(text)
    return ScriptSource(
        path=path,
        text=_INCLUDE.sub(_included_text, text),
        flags=tuple(shebang[1].split(",")) if shebang[1] else (),
        keys=tuple(ScriptKey(*_parts(_KEY_LINE, line)) for line in sections["KEYS"]),
        arguments=tuple(ScriptArgument(*_parts(_ARGUMENT_LINE, line)) for line in sections["ARGV"]),
        codes=tuple(_answer_code(line) for line in sections["RETURNS"]),
    )


@lru_cache(maxsize=1024)
def bind_script(path: str, incarnation: str | None = None) -> BoundScript:
    """Read a script and bind it, once for each incarnation."""
    return read_script(path).bind(incarnation)


def all_scripts() -> tuple[ScriptSource, ...]:
    """Every script under lua/, in the order of their paths."""
    files = LUA_ROOT.glob("*/*.lua")
    paths = sorted(file.relative_to(LUA_ROOT).with_suffix("").as_posix() for file in files)
    return tuple(read_script(path) for path in paths if not path.startswith("include/"))


async def load_scripts(
    redis: Redis, incarnation: str, *, timeout_ms: int = 2_000
) -> Mapping[str, str]:
    """
    Load every script on one server. The coordinator calls this, and nobody else.

    Returns:
        path -> SHA.

    Raises:
        RedisUnavailable: the server did not take them all.
    """
    loaded = {}
    with redis_errors(writes=False):
        async with asyncio.timeout(timeout_ms / 1000):
            for source in all_scripts():
                script = source.bind(incarnation)
                sha = await redis.script_load(script.text)
                assert (sha.decode() if isinstance(sha, bytes) else sha) == script.sha
                loaded[source.path] = script.sha
    return loaded


async def call_script(
    redis: Redis,
    script: BoundScript,
    keys: BucketKeys,
    arguments: Sequence[RedisArgument] = (),
    *,
    timeout_ms: int = 1_000,
) -> Any:  # noqa: ANN401  the reply of a script is what its header says
    """
    Call a loaded script once, through the client's pool.

    Never repeats and never loads. The hot path does not come here: it has a
    connection of its own (`ScriptConnection`).

    Raises:
        ScriptMissing: the server does not know the script.
        RedisRefused: the server refused before the script ran.
        RedisUnavailable: nothing was sent.
        OutcomeUnknown: it was sent and no answer came within timeout_ms.
        BrokenState: the script failed in the middle.
    """
    names = keys.in_order(script.key_names)
    call = ("EVALSHA", script.sha, len(names), *names, *arguments)
    return await call_once(redis, *call, timeout_ms=timeout_ms)


def _included_text(match: re.Match[str]) -> str:
    piece = LUA_ROOT / "include" / f"{match[1]}.lua"
    if not piece.is_file():
        raise BadConfiguration(include=match[1], reason="there is no such piece")
    return piece.read_text(encoding="utf-8")


def _header_sections(text: str) -> dict[str, list[str]]:
    """Sort the indented lines of the header under KEYS, ARGV and RETURNS."""
    sections: dict[str, list[str]] = {"KEYS": [], "ARGV": [], "RETURNS": []}
    current: list[str] = []
    for line in text.splitlines()[1:]:
        if not line.startswith("---"):
            break
        title = _SECTION_LINE.fullmatch(line)
        if title:
            current = sections[title[1]]
        elif line.startswith("---   "):
            current.append(line)
    return sections


def _parts(pattern: re.Pattern[str], line: str) -> tuple[str, ...]:
    match = pattern.fullmatch(line)
    if match is None:
        raise BadConfiguration(header_line=line)
    return match.groups()


def _answer_code(line: str) -> AnswerCode:
    name, number, detail = _parts(_CODE_LINE, line)
    return AnswerCode(name, int(number), detail)
