"""Small disks, or a plain word that the kernel refuses them."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.namespaces.small_disk import NotAllowed, SmallDisk


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], SmallDisk]]:
    """Mount a disk of so many megabytes on a folder, until the test has ended."""
    with contextlib.ExitStack() as mounted:

        def mount(folder: Path, megabytes: int) -> SmallDisk:
            try:
                return mounted.enter_context(SmallDisk(folder, megabytes))
            except NotAllowed as refusal:
                # .ci/run looks for these words: a row that was not run is no success there.
                pytest.skip(f"row not run: {refusal}")

        yield mount
