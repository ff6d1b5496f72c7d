"""
Deliver callbacks until they are acknowledged, on the schedule of a real gateway.

Each protocol's voice signs every try and judges the answer. What is not
acknowledged when the process ends is in the journal, and tried again at once by
the next one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec
import structlog

from app.kernel.clock import Clock
from app.sandbox.records import Callback, Record, Wire
from app.sandbox.settings import SandboxSettings
from app.sandbox.voice import Seal, Voice

_ANSWER_BYTES_MAX: Final = 1_024  # an acknowledgement is a word
_log = structlog.get_logger(__name__)


class Deliveries:
    """The callbacks on their way; use it as an async context."""

    def __init__(
        self,
        settings: SandboxSettings,
        clock: Clock,
        write: Callable[[Record], None],
        voices: Mapping[Wire, Voice],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._write = write
        self._voices = voices
        self._turns = asyncio.Semaphore(settings.callbacks_max)
        self._running: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._settings.callback_seconds)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def resume(self, records: Iterable[Record]) -> None:
        """Go on with what an earlier process had not delivered, to merchants still known."""
        for record in records:
            if not isinstance(record, Callback) or record.done:
                continue
            voice = self._voices.get(record.wire)
            if voice is not None and voice.knows(record):
                self.deliver(record)
            else:
                _log.warning("callback_dropped", id=record.id, wire=record.wire)

    def deliver(self, callback: Callback, copies: int = 1) -> None:
        """Deliver one callback when it is due; `copies` of it side by side."""
        self._write(callback)
        for _ in range(copies):
            self._start(self._deliver(callback))

    def forge(self, callback: Callback, seal: Seal = Seal.FORGED) -> None:
        """Send it once without the gateway's signature."""
        self._start(self._send_forged(callback, seal))

    def _start(self, delivery: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(delivery)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _deliver(self, callback: Callback) -> None:
        await self._wait_until(callback.due_at_ms)
        retry_seconds = self._voices[callback.wire].retry_seconds
        for tries in range(callback.tries, len(retry_seconds) + 1):
            status, acknowledged = await self._post(callback, Seal.TRUE)
            last = tries == len(retry_seconds)
            progress = msgspec.structs.replace(callback, tries=tries + 1, done=acknowledged or last)
            self._write(progress)
            if progress.done:
                break
            _log.info("callback_not_acknowledged", id=callback.id, status=status, tries=tries + 1)
            await asyncio.sleep(retry_seconds[tries] / self._settings.clock_factor)

    async def _send_forged(self, callback: Callback, seal: Seal) -> None:
        await self._wait_until(callback.due_at_ms)
        status, _ = await self._post(callback, seal)
        _log.info("forged_callback_sent", id=callback.id, seal=seal, status=status)

    async def _wait_until(self, due_at_ms: int) -> None:
        await asyncio.sleep(max(0, due_at_ms - self._clock.now_ms()) / 1000)

    async def _post(self, callback: Callback, seal: Seal) -> tuple[int, bool]:
        """Try once; return the status, 0 when there was no answer, and if it will do."""
        assert self._session is not None, "use it as an async context"
        voice = self._voices[callback.wire]
        async with self._turns:
            posted = voice.dress(callback, self._clock.now_ms(), seal)
            try:
                async with self._session.post(
                    callback.url, data=posted.body, headers=posted.headers, allow_redirects=False
                ) as response:
                    answer = await response.content.read(_ANSWER_BYTES_MAX)
                    return response.status, voice.is_acknowledged(response.status, answer)
            except (aiohttp.ClientError, TimeoutError, OSError):
                return 0, False
