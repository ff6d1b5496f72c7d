"""
Deliver callbacks until they are acknowledged, on the schedule of a real gateway.

Every try carries the same id and a fresh timestamp, nonce and signature. What is
not acknowledged when the process ends is in the journal, and tried again at once
by the next one.

Source:
    WeChat Pay's retries: 15 s, 15 s, 30 s, 3 m, … 6 h (docs/PAYMENTS.md §5).
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from app.kernel.clock import Clock
from app.payments.providers.sandbox_wire import KEY_BYTES_MIN, Keys, Purpose, Signed, sign
from app.sandbox.records import Callback, Record
from app.sandbox.settings import SandboxSettings

RETRY_SECONDS: Final = (
    15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800,
    21_600, 21_600,
)  # fmt: skip

_log = structlog.get_logger(__name__)


class Deliveries:
    """The callbacks on their way; use it as an async context."""

    def __init__(
        self, settings: SandboxSettings, clock: Clock, write: Callable[[Record], None]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._write = write
        self._keys = Keys(settings.keys)
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
        """Go on with what an earlier process had not delivered."""
        for record in records:
            if isinstance(record, Callback) and not record.done:
                self.deliver(record)

    def deliver(self, callback: Callback, copies: int = 1) -> None:
        """Deliver one callback when it is due; `copies` of it side by side."""
        self._write(callback)
        for _ in range(copies):
            self._start(self._deliver(callback))

    def forge(self, callback: Callback) -> None:
        """Send it once as somebody who does not have the key."""
        key_id, _ = self._keys.signing
        stranger = Keys({key_id: secrets.token_bytes(KEY_BYTES_MIN)})
        self._start(self._send_forged(callback, stranger))

    def _start(self, delivery: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(delivery)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _deliver(self, callback: Callback) -> None:
        await self._wait_until(callback.due_at_ms)
        for tries in range(callback.tries, len(RETRY_SECONDS) + 1):
            status = await self._post(callback, self._keys)
            acknowledged = status == 200
            last = tries == len(RETRY_SECONDS)
            progress = msgspec.structs.replace(callback, tries=tries + 1, done=acknowledged or last)
            self._write(progress)
            if progress.done:
                break
            _log.info("callback_not_acknowledged", id=callback.id, status=status, tries=tries + 1)
            await asyncio.sleep(RETRY_SECONDS[tries] / self._settings.clock_factor)

    async def _send_forged(self, callback: Callback, stranger: Keys) -> None:
        await self._wait_until(callback.due_at_ms)
        status = await self._post(callback, stranger)
        _log.info("forged_callback_sent", id=callback.id, status=status)

    async def _wait_until(self, due_at_ms: int) -> None:
        await asyncio.sleep(max(0, due_at_ms - self._clock.now_ms()) / 1000)

    async def _post(self, callback: Callback, keys: Keys) -> int:
        """Try once; return the status, 0 when there was no answer."""
        assert self._session is not None, "use it as an async context"
        body = callback.body.encode()
        message = Signed(Purpose.CALLBACK, "POST", urlsplit(callback.url).path, body)
        async with self._turns:
            now_seconds = self._clock.now_ms() // 1000
            headers = sign(keys, message, now_seconds, secrets.token_hex(16))
            headers["Content-Type"] = "application/json"
            try:
                async with self._session.post(
                    callback.url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    return response.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                return 0
