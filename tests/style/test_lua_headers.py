"""The headers under lua/ say what the scripts do, what Python calls, and which keys there are."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from app.inventory.bucket import FenceCode, MoveCode, ReadCode, RenewCode
from app.orders.answers import PlaceCode
from app.orders.stream import TrimCode
from app.storage.keys import CATALOGUE
from app.storage.lua import LUA_ROOT, ScriptSource, all_scripts, read_script

APP: Final = LUA_ROOT.parent / "app"

KEYS_MAX: Final = 6
ARGUMENTS_MAX: Final = 8
LINE_MAX: Final = 100
FUNCTION_LINES_MAX: Final = 70

CODES: Final[dict[str, type[IntEnum]]] = {
    "inventory/fence_bucket": FenceCode,
    "inventory/read_bucket": ReadCode,
    "inventory/renew_lease": RenewCode,
    "inventory/return_group_units": MoveCode,
    "inventory/return_units": MoveCode,
    "inventory/set_seats": MoveCode,
    "inventory/top_up": MoveCode,
    "inventory/withdraw_units": MoveCode,
    "orders/place_group_orders": PlaceCode,
    "orders/place_orders": PlaceCode,
    "orders/trim_stream": TrimCode,
}

# Whatever empties a full server must be let in; nothing that sells or adds stock is.
LET_IN_WHEN_FULL: Final = {
    "inventory/fence_bucket",
    "inventory/renew_lease",
    "inventory/return_group_units",
    "inventory/return_units",
    "inventory/set_seats",
    "inventory/withdraw_units",
    "orders/trim_stream",
}

scripts = pytest.mark.parametrize("script", all_scripts(), ids=lambda script: script.path)


@scripts
def test_the_first_statements_bind_what_the_header_lists(script: ScriptSource) -> None:
    bound = bound_names(script.text)
    expected = [(key.name, f"KEYS[{i}]") for i, key in enumerate(script.keys, start=1)]
    expected += [(arg.name, f"ARGV[{i}]") for i, arg in enumerate(script.arguments, start=1)]
    assert bound == expected


@scripts
def test_keys_and_arguments_are_named_nowhere_else(script: ScriptSource) -> None:
    indexes = Counter(re.findall(r"\b(?:KEYS|ARGV)\s*\[[^\]]*\]", code_of(script.text)))
    listed = [f"KEYS[{i + 1}]" for i in range(len(script.keys))]
    listed += [f"ARGV[{i + 1}]" for i in range(len(script.arguments))]
    assert indexes == Counter(listed)
    assert len(re.findall(r"\b(?:KEYS|ARGV)\b", code_of(script.text))) == len(listed)


@scripts
def test_there_are_few_keys_and_arguments(script: ScriptSource) -> None:
    assert 1 <= len(script.keys) <= KEYS_MAX
    assert len(script.arguments) <= ARGUMENTS_MAX


@scripts
def test_the_headers_keys_are_those_of_the_catalogue(script: ScriptSource) -> None:
    catalogue = {entry.name: (entry.redis_type, entry.pattern) for entry in CATALOGUE}
    for key in script.keys:
        assert (key.redis_type, key.pattern) == catalogue[key.name]


@scripts
def test_the_codes_are_those_of_the_enum_in_its_order(script: ScriptSource) -> None:
    assert [(code.name, code.number) for code in script.codes] == [
        (code.name, code.value) for code in CODES[script.path]
    ]


@scripts
def test_the_constants_of_the_script_are_its_codes(script: ScriptSource) -> None:
    numbers = {code.name: code.number for code in script.codes}
    reserved = {code.name for code in script.codes if "reserved" in code.detail}
    constants = {name: value for name, value in constants_of(script.text) if name in numbers}
    assert constants == {name: n for name, n in numbers.items() if name not in reserved}


@scripts
def test_the_header_begins_with_the_scripts_name(script: ScriptSource) -> None:
    assert script.text.splitlines()[1].startswith(f"--- {script.name}: ")


@scripts
def test_only_what_empties_a_full_server_is_let_in(script: ScriptSource) -> None:
    expected = {"allow-oom"} if script.path in LET_IN_WHEN_FULL else set()
    assert set(script.flags) - {"no-writes"} == expected


@scripts
def test_every_script_is_owned_by_one_module_of_its_stage(script: ScriptSource) -> None:
    stage = script.path.partition("/")[0]
    owners = [path for path in APP.rglob("*.py") if script.path in strings_of(path)]
    assert len(owners) == 1, owners
    assert owners[0].relative_to(APP).parts[0] == stage


def test_no_module_names_a_script_that_is_not_there() -> None:
    paths = {script.path for script in all_scripts()}
    asked = {text for path in APP.rglob("*.py") for text in strings_of(path)}
    stages = "|".join(sorted({path.partition("/")[0] for path in paths}))
    assert {text for text in asked if re.fullmatch(rf"({stages})/[a-z_]+", text)} == paths


def test_every_included_piece_is_used() -> None:
    texts = [(LUA_ROOT / f"{script.path}.lua").read_text() for script in all_scripts()]
    used = {
        name for text in texts for name in re.findall(r"^--- @include (\w+)$", text, re.MULTILINE)
    }
    assert used == {path.stem for path in (LUA_ROOT / "include").glob("*.lua")}


@pytest.mark.parametrize("path", sorted(LUA_ROOT.rglob("*.lua")), ids=lambda path: path.stem)
def test_lua_keeps_to_the_page(path: Path) -> None:
    text = path.read_text()
    for number, line in enumerate(text.splitlines(), start=1):
        assert len(line) <= LINE_MAX, f"line {number}"
        assert line == line.rstrip(), f"line {number}"
        assert "\t" not in line, f"line {number}"
        assert (len(line) - len(line.lstrip(" "))) % 2 == 0, f"line {number}"
    assert re.search(r"^\s*function\b|\bpcall\b", code_of(text), re.MULTILINE) is None
    for body in re.findall(r"^local function .*?^end$", text, re.MULTILINE | re.DOTALL):
        assert body.count("\n") < FUNCTION_LINES_MAX


def test_an_include_is_resolved_in_place() -> None:
    text = read_script("inventory/top_up").text
    assert "@include" not in text
    assert text.count("local function whole_number(") == 1


def code_of(text: str) -> str:
    """The script without its comments."""
    return re.sub(r"--.*", "", text)


def bound_names(text: str) -> list[tuple[str, str]]:
    """Name and index of each statement `local … = …` that stands right after the header."""
    bound: list[tuple[str, str]] = []
    after_header = re.sub(r"\A#!.*\n(?:---.*\n)*", "", text)
    for names, values in re.findall(
        r"local ([\w, ]+?) =\s*([^=]+?)\n(?=local|\n)", after_header.partition("\n\n")[0] + "\n\n"
    ):
        bound += zip(re.split(r",\s*", names), re.split(r",\s*", values), strict=True)
    return bound


def constants_of(text: str) -> Iterator[tuple[str, int]]:
    """Each `local NAME, NAME = 1, 2`, name by name."""
    for names, values in re.findall(r"^local ([A-Z_, ]+) = ([-\d, ]+)$", text, re.MULTILINE):
        yield from zip(names.split(", "), map(int, values.split(", ")), strict=True)


@cache
def strings_of(path: Path) -> set[str]:
    """Every string constant of a module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
