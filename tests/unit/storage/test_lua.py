"""Reading scripts: shebang, includes, header, binding."""

import hashlib

import pytest

from app.kernel.errors import BadConfiguration
from app.storage.lua import AnswerCode, ScriptArgument, ScriptKey, all_scripts, parse_script

SCRIPT = """\
#!lua flags=allow-oom
--- sell_one: sell one.
---
--- KEYS
---   state  hash  <deployment>:state  what is left
--- ARGV
---   units  int  1..
--- RETURNS {code, detail}, checked in this order
---   SOLD_OUT  -1  detail: 0
---   SOLD      0   detail: units left
local state = KEYS[1]
local units = ARGV[1]
--- @include whole_number
return {0, whole_number(units)}
"""


def test_a_header_is_read_line_by_line() -> None:
    script = parse_script("orders/sell_one", SCRIPT)
    assert script.name == "sell_one"
    assert script.flags == ("allow-oom",)
    assert script.keys == (ScriptKey("state", "hash", "<deployment>:state", "what is left"),)
    assert script.arguments == (ScriptArgument("units", "int", "1.."),)
    assert script.codes == (
        AnswerCode("SOLD_OUT", -1, "detail: 0"),
        AnswerCode("SOLD", 0, "detail: units left"),
    )


def test_an_include_takes_the_place_of_its_line() -> None:
    script = parse_script("orders/sell_one", SCRIPT)
    assert "@include" not in script.text
    assert "local function whole_number(text)" in script.text


def test_a_bound_script_is_known_by_the_sha_of_its_text() -> None:
    bound = parse_script("orders/sell_one", SCRIPT).bind()
    assert bound.sha == hashlib.sha1(bound.text.encode(), usedforsecurity=False).hexdigest()
    assert bound.key_names == ("state",)


def test_the_incarnation_is_a_literal_of_the_text() -> None:
    script = parse_script("orders/sell_one", SCRIPT + 'local INCARNATION = "@incarnation@"\n')
    one, other = script.bind("0" * 16), script.bind("f" * 16)
    assert 'INCARNATION = "0000000000000000"' in one.text
    assert one.sha != other.sha


@pytest.mark.parametrize("incarnation", [None, "", "0" * 15, "G" * 16, '"' * 16])
def test_an_incarnation_is_sixteen_hex_digits(incarnation: str | None) -> None:
    script = parse_script("orders/sell_one", SCRIPT + "-- @incarnation@\n")
    with pytest.raises(AssertionError):
        script.bind(incarnation)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "return 1",
        SCRIPT.replace("#!lua flags=allow-oom", "#!lua  flags=allow-oom"),
        SCRIPT.replace("#!lua", "#!python"),
        SCRIPT.replace("whole_number\n", "no_such_piece\n"),
        SCRIPT.replace("hash  <deployment>:state  what is left", "hash"),
        SCRIPT.replace("int  1..", "int"),
        SCRIPT.replace("-1  detail: 0", "minus one"),
    ],
)
def test_a_malformed_script_stops_the_start(text: str) -> None:
    with pytest.raises(BadConfiguration):
        parse_script("orders/sell_one", text)


def test_the_scripts_are_found() -> None:
    paths = [script.path for script in all_scripts()]
    assert paths == sorted(paths)
    assert {"orders/place_orders", "inventory/renew_lease"} <= set(paths)
    assert not any(path.startswith("include/") for path in paths)
