"""The gateway as a process: open the journal, listen, deliver, stop."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from app.kernel.clock import Clock, SystemClock
from app.sandbox.address import Address
from app.sandbox.alipay.merchants import read_merchants as read_alipay_merchants
from app.sandbox.alipay.routes import add_alipay
from app.sandbox.alipay.voice import AlipayVoice
from app.sandbox.book import Book
from app.sandbox.control import ControlRoutes, Stage
from app.sandbox.delivery import Deliveries
from app.sandbox.desk import Desk
from app.sandbox.journal import Journal
from app.sandbox.plain.routes import PlainRoutes
from app.sandbox.plain.voice import PlainVoice
from app.sandbox.records import Callback, Wire
from app.sandbox.routes import PageRoutes
from app.sandbox.scripts import Scripts
from app.sandbox.settings import SandboxSettings
from app.sandbox.transfers import TransferBook
from app.sandbox.voice import Voice
from app.sandbox.wechatpay.merchants import read_merchants as read_wechatpay_merchants
from app.sandbox.wechatpay.routes import add_wechatpay
from app.sandbox.wechatpay.voice import WechatpayVoice

_BODY_BYTES_MAX: Final = 1_048_576  # a batch of a thousand transfers
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
    address = Address(settings.public_url)
    scripts = Scripts(journal.write)
    book = Book(settings, clock, journal.write, scripts)
    transfers = TransferBook(settings, clock, journal.write, scripts)
    for memory in (scripts, book, transfers):
        memory.remember(earlier)
    undelivered = [one for one in earlier if isinstance(one, Callback) and not one.done]
    journal.begin([*scripts.records(), *book.records(), *transfers.records(), *undelivered])
    protocols = _Protocols(settings, clock)
    voices = protocols.voices(address)
    try:
        async with Deliveries(settings, clock, journal.write, voices) as deliveries:
            desk = Desk(
                settings=settings,
                book=book,
                transfers=transfers,
                scripts=scripts,
                deliveries=deliveries,
                voices=voices,
                address=address,
            )
            async with _listening(desk, protocols) as port:
                address.bind(settings.host, port)
                deliveries.resume(undelivered)
                yield address.url
    finally:
        journal.close()


class _Protocols:
    """The protocols that this gateway speaks, each for the merchants it knows."""

    def __init__(self, settings: SandboxSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._wechatpay = read_wechatpay_merchants(settings.wechatpay)
        self._alipay = read_alipay_merchants(settings.alipay)

    def voices(self, address: Address) -> dict[Wire, Voice]:
        voices: dict[Wire, Voice] = {
            Wire.PLAIN: PlainVoice(self._settings.keys, address.page_of),
        }
        if self._wechatpay:
            voices[Wire.WECHATPAY] = WechatpayVoice(self._wechatpay)
        if self._alipay:
            voices[Wire.ALIPAY] = AlipayVoice(self._alipay)
        return voices

    def doors(self, desk: Desk) -> web.Application:
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        stage = Stage(desk)
        for routes in (PlainRoutes(desk), ControlRoutes(desk, stage), PageRoutes(desk, stage)):
            routes.add_to(app)
        if self._wechatpay:
            add_wechatpay(app, desk, self._wechatpay, self._clock)
        if self._alipay:
            add_alipay(app, desk, self._alipay, self._clock)
        return app


@asynccontextmanager
async def _listening(desk: Desk, protocols: _Protocols) -> AsyncGenerator[int]:
    runner = web.AppRunner(protocols.doors(desk), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, desk.settings.host, desk.settings.port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
