"""What the browser tests may ask for: a browser, a shop, and a wire between the two."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.browser.webdriver import Browser, NoBrowser, Programs, find_programs, open_browser
from tests.faults.lab.proxy import Link, Proxies
from tests.journeys.service import RunningService
from tests.journeys.shop import Shop, visit

REQUIRED: Final = "REQUIRE_BROWSER"  # set by the build server: there, not run is not passed


@pytest.fixture(scope="session", autouse=True)
def programs() -> Programs:
    """A browser and its driver; without them all is skipped, or fails where it must not be."""
    try:
        return find_programs()
    except NoBrowser as missing:
        if os.environ.get(REQUIRED):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture
async def browser(programs: Programs, tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser with an empty profile."""
    async with open_browser(programs, tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
async def shop(service: RunningService) -> AsyncIterator[Shop]:
    """The shop of the service that all tests share."""
    async with visit(service.run) as opened:
        yield opened


@pytest.fixture
def link(service: RunningService) -> Iterator[Link]:
    """A wire to the shoppers' listener that can be cut."""
    port = urlsplit(service.run.public).port
    assert port is not None
    with Proxies() as proxies:
        yield proxies.link_to(port)
