"""
What a fault test may ask for: a running site, and a seed.

    SEED=17            one seed
    SEEDS=200          seeds 0 to 199
    SEEDS=100:120      seeds 100 to 119

Without either, the handful that `make test` runs.
"""

import asyncio
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.lab.site import Site

HANDFUL: Final = range(1, 4)
FAILED: Final = pytest.StashKey[bool]()
TOLD: Final = pytest.StashKey[list[tuple[str, list[str], list[float]]]]()


def seeds() -> range:
    """Read which seeds are asked for."""
    if one := os.environ.get("SEED"):
        return range(int(one), int(one) + 1)
    first, colon, last = os.environ.get("SEEDS", "").partition(":")
    if colon:
        return range(int(first), int(last))
    return range(int(first)) if first else HANDFUL


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", seeds())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note which tests failed: their site is not used again."""
    outcome: Any = yield
    if outcome.get_result().failed:
        item.stash[FAILED] = True


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tell what each run did, and how long buckets were away."""
    told = config.stash.get(TOLD, [])
    if not told:
        return
    terminalreporter.section("faults")
    for name, notes, _ in told:
        terminalreporter.write_line(name)
        for note in notes:
            terminalreporter.write_line(f"    {note}")
    seconds = sorted(second for _, _, recoveries in told for second in recoveries)
    if seconds:
        terminalreporter.write_line(
            f"{len(seconds)} buckets reopened: median {statistics.median(seconds):.1f} s, "
            f"worst {seconds[-1]:.1f} s"
        )


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have something told at the end of the session, by a test without a site."""
    notes: list[str] = []
    request.config.stash.setdefault(TOLD, []).append((request.node.name, notes, []))
    return notes.append


class SiteKeeper:
    """One site for many tests; a new one after each that failed."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._site: Site | None = None

    def lend(self) -> Site:
        if self._site is None:
            site = Site(Path(self._factory.mktemp("site")) / "s")
            self._site = site
            asyncio.run(site.start())
        return self._site

    def discard(self) -> None:
        site, self._site = self._site, None
        if site is not None:
            site.stop()


@pytest.fixture(scope="session")
def site_keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteKeeper]:
    keeper = SiteKeeper(tmp_path_factory)
    yield keeper
    keeper.discard()


@pytest.fixture
def site(site_keeper: SiteKeeper, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site where everything serves; left as it was found."""
    lent = site_keeper.lend()
    lent.notes, lent.recoveries = [], []
    yield lent
    told = request.config.stash.setdefault(TOLD, [])
    told.append((request.node.name, lent.notes, lent.recoveries))
    if request.node.stash.get(FAILED, False):
        site_keeper.discard()
    else:
        lent.heal()
        asyncio.run(lent.start_what_is_down())
