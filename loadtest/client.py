"""
A pool of connections to one listener: requests as bytes, answers as JSON.

Connections are opened when needed, kept, and given out first come, first served.
Nothing is repeated here: whether a request may be sent twice is for the shopper
to decide, who knows its Idempotency-Key.
"""

import asyncio
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from loadtest.connection import Connection, Reply
from loadtest.errors import Unreachable

CONNECTIONS_MAX: Final = 128
TIMEOUT_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 5.0

_ENCODER: Final = msgspec.json.Encoder()


class Client:
    """
    Speaks to one listener.

    Args:
        url: `http://host:port`; a path is not allowed.
        connections_max: open at the same time; further requests wait their turn.
        timeout_seconds: from the send of a request to its whole answer.

    Attributes:
        under_way: requests sent and not yet answered.
    """

    def __init__(
        self,
        url: str,
        *,
        connections_max: int = CONNECTIONS_MAX,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "http", url
        assert parts.path in {"", "/"}, url
        self.url = f"http://{parts.netloc}"
        self.timeout_seconds = timeout_seconds
        self.under_way = 0
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._slots = asyncio.Semaphore(connections_max)
        self._idle: list[Connection] = []
        self._host_line = f"Host: {parts.netloc}\r\n"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def idle(self) -> int:
        """How many open connections wait for a request."""
        return sum(connection.is_open for connection in self._idle)

    def close(self) -> None:
        """Cut what is idle; exchanges under way end by themselves."""
        while self._idle:
            self._idle.pop().abort()

    def compose(
        self,
        method: str,
        path: str,
        *,
        headers: str = "",
        body: object = None,
    ) -> bytes:
        r"""
        Write a request as bytes.

        Args:
            method: GET, POST, PUT or DELETE.
            path: with the query, percent-encoded.
            headers: whole lines, each ended by "\r\n".
            body: what becomes the JSON body; None for none.
        """
        line = f"{method} {path} HTTP/1.1\r\n{self._host_line}{headers}"
        if body is None:
            length = "Content-Length: 0\r\n" if method != "GET" else ""
            return f"{line}{length}\r\n".encode()
        content = _ENCODER.encode(body)
        described = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        return f"{line}{described}".encode() + content

    async def send(self, request: bytes) -> Reply:
        """
        Send what `compose` wrote, when a connection is free.

        Raises:
            NoAnswer: sent, and no answer came.
            Unreachable: not sent.
        """
        async with self._slots:
            connection = self._take() or await self._open()
            self.under_way += 1
            try:
                return await connection.exchange(request, self.timeout_seconds)
            finally:
                self.under_way -= 1
                if connection.is_open:
                    self._idle.append(connection)

    async def call(
        self,
        method: str,
        path: str,
        *,
        headers: str = "",
        body: object = None,
    ) -> Reply:
        """Compose and send in one step, where speed does not matter."""
        return await self.send(self.compose(method, path, headers=headers, body=body))

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, connection = await loop.create_connection(Connection, self._host, self._port)
        except (OSError, TimeoutError) as exc:
            raise Unreachable(self.url, exc) from exc
        return connection


def bearer(token: str) -> str:
    """Write the header line that names a shopper or an operator."""
    return f"Authorization: Bearer {token}\r\n"


def document(reply: Reply) -> dict[str, Any]:
    """Read the JSON object of an answer; an empty or other body reads as {}."""
    try:
        content = msgspec.json.decode(reply.body)
    except msgspec.DecodeError:
        return {}
    return content if isinstance(content, dict) else {}
