"""The gateway as a process: open the journal, listen, deliver, stop."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from app.kernel.clock import Clock, SystemClock
from app.sandbox.delivery import Deliveries
from app.sandbox.gateway import Gateway
from app.sandbox.journal import Journal
from app.sandbox.records import Callback
from app.sandbox.routes import GatewayRoutes
from app.sandbox.settings import SandboxSettings

_BODY_BYTES_MAX: Final = 65_536
_log = structlog.get_logger(__name__)


async def run_sandbox(
    settings: SandboxSettings, stopping: asyncio.Event, on_ready: Callable[[str], None]
) -> None:
    """
    Serve the sandbox gateway until `stopping` is set.

    Args:
        settings: where, for whom, how fast.
        stopping: set it to end; callbacks on their way go on at the next start.
        on_ready: called once with the gateway's URL when it listens.
    """
    async with serve_sandbox(settings, SystemClock()) as url:
        _log.info("sandbox_ready", url=url)
        on_ready(url)
        await stopping.wait()


@asynccontextmanager
async def serve_sandbox(settings: SandboxSettings, clock: Clock) -> AsyncGenerator[str]:
    """Run a gateway inside this process; yields its URL."""
    journal = Journal(settings.journal_dir)
    earlier = journal.read()
    # A free port is known only once it is bound, and pages name it.
    address = _Address(settings.public_url)
    gateway = Gateway(settings, clock, journal.write, address.page_of)
    gateway.remember(earlier)
    undelivered = [one for one in earlier if isinstance(one, Callback) and not one.done]
    journal.begin([*gateway.records(), *undelivered])
    try:
        async with Deliveries(settings, clock, journal.write) as deliveries:
            routes = GatewayRoutes(settings, gateway, deliveries, clock)
            async with _listening(settings, routes) as port:
                address.bind(settings.host, port)
                deliveries.resume(undelivered)
                yield address.url
    finally:
        journal.close()


@asynccontextmanager
async def _listening(settings: SandboxSettings, routes: GatewayRoutes) -> AsyncGenerator[int]:
    app = web.Application(client_max_size=_BODY_BYTES_MAX)
    routes.add_to(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


class _Address:
    """Where browsers and merchants find the gateway."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def bind(self, host: str, port: int) -> None:
        self.url = self.url or f"http://{host}:{port}"

    def page_of(self, number: str) -> str:
        return f"{self.url}/pay/{number}"
