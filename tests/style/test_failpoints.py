"""The catalogue of failpoints, the code and the table of their tests name the same points."""

import ast
from collections import Counter

from app.kernel.failpoints import CATALOGUE
from tests.faults.steps.table import CASES
from tests.style.sources import python_sources


def names_in_the_code() -> list[str]:
    """The literal of every call of `failpoint` in app/; anything but a literal is told as such."""
    return [
        call.args[0].value if isinstance(call.args[0], ast.Constant) else ast.unparse(call)
        for source in python_sources("app")
        for call in ast.walk(source.tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "failpoint"
    ]


def test_every_failpoint_stands_in_one_place_and_in_the_catalogue():
    assert Counter(names_in_the_code()) == Counter(list(CATALOGUE))


def test_a_process_dies_at_every_failpoint():
    assert {case.failpoint for case in CASES} == set(CATALOGUE)
