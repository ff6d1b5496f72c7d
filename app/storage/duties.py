"""
Who does what: work divided between processes by advisory locks.

A duty is one kind of work on one shard, or on one bucket of it. A process that
asks for a duty gets it if nobody else has it, and keeps it for as long as its
session lives. Duties make work efficient, not correct: each piece of work also
compares what it found with what it changes.
"""

import asyncio
from typing import Final

from app.kernel.errors import Unavailable
from app.kernel.loop import pause
from app.storage.shards import Database, LockPurpose, LockSession

PING_MS: Final = 1_000  # the server ends a lock session that is silent for 5 s


class Duties:
    """The duties this process has on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: LockSession | None = None
        self._held: set[tuple[LockPurpose, int]] = set()
        self._opening = asyncio.Lock()

    async def has(self, purpose: LockPurpose, subject: int = 0) -> bool:
        """
        Take a duty if it is free; say whether we have it.

        Raises:
            ShardUnavailable, LedgerUnavailable: we have nothing there any more.
        """
        if (purpose, subject) in self._held:
            return True
        session = await self._open()
        try:
            taken = await session.try_lock(purpose, subject)
        except Unavailable:
            await self._lose()
            raise
        if taken and session is self._session:
            self._held.add((purpose, subject))
        return taken

    async def leave(self, purpose: LockPurpose, subject: int = 0) -> None:
        """Give a duty up, if we have it."""
        if (purpose, subject) in self._held and self._session is not None:
            self._held.discard((purpose, subject))
            try:
                await self._session.unlock(purpose, subject)
            except Unavailable:
                await self._lose()

    async def keep(self, stopping: asyncio.Event) -> None:
        """Keep the session alive until `stopping`; a session that is lost is forgotten."""
        while not stopping.is_set():
            await pause(stopping, PING_MS)
            if self._session is None:
                continue
            try:
                await self._session.ping()
            except Unavailable:
                await self._lose()
        await self.close()

    async def close(self) -> None:
        """Give every duty up."""
        await self._lose()

    async def _open(self) -> LockSession:
        async with self._opening:
            if self._session is None:
                self._session = await self._database.lock_session()
            return self._session

    async def _lose(self) -> None:
        session, self._session = self._session, None
        self._held.clear()
        if session is not None:
            await session.close()
