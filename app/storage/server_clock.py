"""
The selling clock: Valkey's, because that clock decides a sale's window.

Each process keeps the offset between its own clock and the server's, from the
scripts' replies and from one TIME a second.
"""

import asyncio
import contextlib
from typing import Final

from redis.asyncio import Redis

from app.kernel.clock import Clock
from app.kernel.errors import DoorbusterError
from app.kernel.loop import pause
from app.storage.redis import redis_errors

ASK_MS: Final = 1_000


class ServerClock:
    """Tells the server's time without asking it each time."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._ahead_ms = 0

    def now_ms(self) -> int:
        """Return the server's time, Unix milliseconds, to within half a round trip."""
        return self._own.now_ms() + self._ahead_ms

    def observe(self, server_now_ms: int) -> None:
        """Take the server's time from a reply that has just come."""
        self._ahead_ms = server_now_ms - self._own.now_ms()

    async def ask(self, redis: Redis) -> None:
        """
        Ask the server for its time.

        Raises:
            RedisUnavailable: no answer; the old offset stays.
        """
        with redis_errors(writes=False):
            seconds, microseconds = await redis.time()
        self.observe(int(seconds) * 1000 + int(microseconds) // 1000)

    async def keep(self, redis: Redis, stopping: asyncio.Event) -> None:
        """Ask once a second until `stopping`; a server that is away changes nothing."""
        while not stopping.is_set():
            with contextlib.suppress(DoorbusterError):
                await self.ask(redis)
            await pause(stopping, ASK_MS)
