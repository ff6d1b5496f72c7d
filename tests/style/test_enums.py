"""Python's enums and SQL's say the same words."""

import enum
import importlib
import re

import pytest

from tests.style.sources import python_sources, text_files

CREATE = re.compile(r"CREATE TYPE (\w+) AS ENUM\s*\(([^)]*)\)")
ADD_VALUE = re.compile(r"ALTER TYPE (\w+) ADD VALUE (?:IF NOT EXISTS )?'(\w+)'")

# An SQL type is named as its Python twin, but for these.
RENAMED = {"account_guard": "Guard", "bucket_state": "BucketMode", "ledger_side": "Side"}


def sql_enums() -> dict[str, list[str]]:
    """Every enum type of the migrations, with its values after all of them."""
    found: dict[str, list[str]] = {}
    for path in text_files("app/storage/migrations/*/*.sql"):
        text = path.read_text(encoding="utf-8")
        for name, values in CREATE.findall(text):
            found[name] = re.findall(r"'(\w+)'", values)
        for name, value in ADD_VALUE.findall(text):
            found[name].append(value)
    return found


def python_enums() -> dict[str, type[enum.StrEnum]]:
    """Every StrEnum that a module of the service defines, by its name."""
    modules = [
        importlib.import_module(source.module)
        for source in python_sources("app")
        if "StrEnum)" in source.text
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, enum.EnumType) and issubclass(value, enum.StrEnum)
    }


def twin_of(sql_name: str) -> str:
    return RENAMED.get(sql_name, sql_name.title().replace("_", ""))


SQL_ENUMS = sql_enums()


@pytest.mark.parametrize("name", sorted(SQL_ENUMS))
def test_an_sql_enum_and_its_python_twin_hold_the_same_values(name):
    twin = python_enums()[twin_of(name)]

    assert sorted(str(member) for member in twin) == sorted(SQL_ENUMS[name])


def test_a_members_name_is_its_value_in_capitals():
    odd = {
        f"{enum_name}.{member.name}"
        for enum_name, members in python_enums().items()
        if enum_name in {twin_of(name) for name in SQL_ENUMS}
        for member in members
        if member.name.lower() != member.value
    }
    assert odd == set()
