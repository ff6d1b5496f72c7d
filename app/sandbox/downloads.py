"""Files that can be fetched for a short time under an address that cannot be guessed."""

import secrets
from typing import Final

from app.kernel.clock import Clock

_FILES_MAX: Final = 64


class Downloads:
    """The newest files, each until its time is over."""

    def __init__(self, clock: Clock, lifetime_ms: int) -> None:
        self._clock = clock
        self._lifetime_ms = lifetime_ms
        self._files: dict[str, tuple[int, bytes]] = {}

    def offer(self, content: bytes) -> str:
        """Keep a file and return the token it is fetched with."""
        token = secrets.token_urlsafe(24)
        self._files[token] = (self._clock.now_ms() + self._lifetime_ms, content)
        while len(self._files) > _FILES_MAX:
            del self._files[next(iter(self._files))]
        return token

    def fetch(self, token: str) -> bytes | None:
        """Return a file; None when there is none, or none any more."""
        until_ms, content = self._files.get(token, (0, b""))
        return content if self._clock.now_ms() < until_ms else None
