"""The suite is worth something: it catches each way of breaking the service that we know of."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.faults.mutants.mutants import MUTANTS, Mutant

ROOT: Final = Path(__file__).parents[3]
COPIED: Final = ("app", "lua", "loadtest", "tests")
RUN_SECONDS: Final = 180.0
PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of everything that a test needs, to be broken."""
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=leave_out)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    """Run one test of a tree against the code of that tree, in temporary folders of its own."""
    with tempfile.TemporaryDirectory(prefix="m") as temporary:
        own = {
            "PYTHONPATH": str(tree),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DEBUG_TEMPROOT": temporary,  # others tidy theirs up at any moment
        }
        return subprocess.run(  # noqa: S603  our own suite
            [*PYTEST, test],
            cwd=tree,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(mutant, id=mutant.name, marks=[] if mutant.often else pytest.mark.faults)
        for mutant in MUTANTS
    ],
)
def test_the_suite_catches(mutant: Mutant, tree: Path):
    mutant.apply(tree)
    ended = run(tree, mutant.caught_by)
    said = ended.stdout[-3_000:] + ended.stderr[-1_000:]
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, said
    failed = re.findall(r"^FAILED (\S+)", ended.stdout, re.MULTILINE)
    assert any(name.startswith(mutant.caught_by) for name in failed), said
    assert "error" not in ended.stdout.splitlines()[-1], said


def test_every_mutant_can_still_be_made(tree: Path):
    for mutant in MUTANTS:
        shutil.copy(ROOT / mutant.file, tree / mutant.file)
        mutant.apply(tree)


def test_a_mutant_whose_place_has_moved_is_told(tree: Path):
    mutant = Mutant("nowhere", MUTANTS[0].file, (("no such text\n", ""),), "")
    with pytest.raises(AssertionError, match="0 times"):
        mutant.apply(tree)
