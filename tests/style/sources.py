"""The project's own files, as the style tests read them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("app", "loadtest", "tests")


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @property
    def name(self) -> str:
        """The path from the root of the project, with slashes."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        """The dotted name; a package's is that of its folder."""
        return self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)


def python_sources(*folders: str) -> list[Source]:
    """
    Every Python file of these folders (all when none is named), in order of path.

    Each is read and parsed once, however many tests look at it.
    """
    return [
        _source(path)
        for folder in folders or FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


@cache
def _source(path: Path) -> Source:
    return Source(path)


def text_files(*patterns: str) -> Iterator[Path]:
    """The files that match, such as `lua/**/*.lua`, in order of path."""
    for pattern in patterns:
        yield from sorted(ROOT.glob(pattern))
