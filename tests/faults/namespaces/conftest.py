"""Small disks, or a plain word that the kernel refuses them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.namespaces.small_disk import NotAllowed, SmallDisk

REQUIRED: Final = "REQUIRE_EVERY_ROW"  # set by the build server: there, not run is not passed


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], SmallDisk]]:
    """Mount a disk of so many megabytes on a folder, until the test has ended."""
    with contextlib.ExitStack() as mounted:

        def mount(folder: Path, megabytes: int) -> SmallDisk:
            try:
                return mounted.enter_context(SmallDisk(folder, megabytes))
            except NotAllowed as refusal:
                told = f"row not run: {refusal}"
                if os.environ.get(REQUIRED):
                    pytest.fail(told)
                pytest.skip(told)

        yield mount
