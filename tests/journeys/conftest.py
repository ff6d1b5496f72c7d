"""What the journeys may ask for: a running service, and its shop."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.journeys.service import RunningService
from tests.journeys.shop import Promises, Shop, visit


@pytest.fixture
async def shop(service: RunningService) -> AsyncIterator[Shop]:
    """The shop of the service that all journeys share; each has sales of its own."""
    async with visit(service.run) as opened:
        yield opened
        await opened.close_sales()


@pytest.fixture
def promises(shop: Shop) -> Promises:
    """What must hold at the end of each journey."""
    return Promises(shop)


@pytest.fixture
def own_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that this test alone may break; not started yet."""
    made = RunningService(tmp_path_factory.mktemp("own") / "data", api_processes=1)
    yield made
    made.forget()
