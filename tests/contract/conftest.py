"""What the contract tests may ask for: an api process with tokens of every scope."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from app.embedded.ports import LOCALHOST, free_port
from app.embedded.probes import answers_ready
from tests.contract.door import SCOPES, TOKENS, Door
from tests.journeys.service import RunningService, role_beside
from tests.journeys.shop import Shop, visit
from tests.waiting import eventually


@pytest.fixture(scope="session")
def guarded_urls(service: RunningService) -> Iterator[dict[str, str]]:
    """One more api process of the running service; where its listeners are."""
    public, admin = free_port(), free_port()
    operators = [
        {"name": name, "scope": SCOPES[name], "token": token} for name, token in TOKENS.items()
    ]
    settings = {
        "DOORBUSTER_PROCESS__INDEX": "0",
        "DOORBUSTER_PROCESS__METRICS_PORT": "0",
        "DOORBUSTER_WEB__PORT": str(public),
        "DOORBUSTER_WEB__ADMIN_PORT": str(admin),
        "DOORBUSTER_AUTH__OPERATORS": json.dumps(operators),
    }
    with role_beside(service, "api", **settings):
        asyncio.run(eventually(lambda: answers_ready(admin), within_seconds=60))
        yield {"public": f"http://{LOCALHOST}:{public}", "admin": f"http://{LOCALHOST}:{admin}"}


@pytest.fixture
async def door(service: RunningService, guarded_urls: dict[str, str]) -> AsyncIterator[Door]:
    """Its doors."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        yield Door(client, service.run, guarded_urls)


@pytest.fixture
async def shop(service: RunningService) -> AsyncIterator[Shop]:
    """The same service as its honest clients see it."""
    async with visit(service.run) as opened:
        yield opened


@pytest.fixture(scope="session")
def lasting_sale(service: RunningService) -> str:
    """A sale for tests that change one of its orders at most; each open one is work for ever."""

    async def open_one() -> str:
        async with visit(service.run) as opened:
            return await opened.open_sale(limit_per_shopper=999, stock=9_000)

    return asyncio.run(open_one())
