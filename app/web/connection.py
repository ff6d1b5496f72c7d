"""
One client's connection, guarded: deadlines and caps that aiohttp has none of.

aiohttp waits for the end of a header as long as an idle connection may last, so
a slow client holds a connection for over a minute with a byte now and then. A
`Connection` remembers since when a header has been under way and `Connections`
looks at all of them a few times per deadline: two assignments per request
instead of a timer each.
"""

import asyncio
import contextlib
from collections import Counter
from http import HTTPStatus
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from app.web.keys import REQUEST_ID
from app.web.problem import SERVER, problem
from app.web.request_id import name_request
from app.web.settings import WebSettings

_LOOKS_PER_DEADLINE: Final = 4


class Connection(web.RequestHandler):
    """aiohttp's protocol, with a header deadline, a place in the count and our refusals."""

    __slots__ = ("_address", "_connections", "_header_since", "is_serving")

    def __init__(self, manager: web.Server, connections: "Connections") -> None:
        settings = connections.settings
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=settings.keepalive_seconds,
            lingering_time=settings.linger_seconds,
            max_line_size=settings.header_bytes_max,
            max_field_size=settings.header_bytes_max,
            max_headers=settings.headers_max,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # None switches it off; aiohttp's hint forgot
        )
        self._connections = connections
        self._address = ""
        self._header_since: float | None = None
        self.is_serving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        if not self._connections.admit(self, self._address):
            cast("asyncio.Transport", transport).abort()
            return
        # Somebody who connects and says nothing is held to the same deadline.
        self._header_since = self._connections.now()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.forget(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._header_since is None and not self.is_serving:
            self._header_since = self._connections.now()
        super().data_received(data)

    def request_started(self) -> None:
        """Note that a whole header has arrived; from here the body's deadline rules."""
        self.is_serving = True
        self._header_since = None
        self._connections.serving += 1

    def request_finished(self) -> None:
        """Note that the answer is ready; the next header may take its time again."""
        self.is_serving = False
        self._header_since = None
        self._connections.finish_one()

    @property
    def is_leaving(self) -> bool:
        """Whether the listener drains: the answer being sent is the last on this line."""
        return self._connections.is_draining

    def is_late(self, deadline: float) -> bool:
        """Say whether a header has been under way since before `deadline` (loop time)."""
        return (
            not self.is_serving and self._header_since is not None and self._header_since < deadline
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  aiohttp's wording is not for clients
    ) -> web.StreamResponse:
        """Answer what the parser could not read, without aiohttp's log line and text."""
        if request.writer.output_size > 0:
            raise ConnectionError
        request[REQUEST_ID] = name_request(request)
        response = problem(_code_of(status, exc), request)
        response.headers["X-Request-Id"] = request[REQUEST_ID]
        response.headers["Server"] = SERVER
        response.force_close()
        return response


def _code_of(status: int, exc: BaseException | None) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "internal_error"
    if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
        return "header_too_large"
    return "bad_request"


class Connections:
    """All connections of one listener: makes them, counts them, cuts the late ones."""

    def __init__(self, settings: WebSettings, connections_max: int) -> None:
        self.settings = settings
        self.now = asyncio.get_running_loop().time
        self.refused = 0
        self.cut = 0
        self.serving = 0
        self.is_draining = False
        self._drained = asyncio.Event()
        self._connections_max = connections_max
        self._open: set[Connection] = set()
        self._per_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def finish_one(self) -> None:
        """Count one request as answered."""
        self.serving -= 1
        if self.is_draining and self.serving == 0:
            self._drained.set()

    async def drain(self, seconds: float) -> None:
        """
        Close what is idle and wait for requests under way, bodies still arriving included.

        aiohttp's own shutdown stops reading first, so that a half-sent body
        would never be answered; this runs before it.

        Args:
            seconds: at most; whoever takes longer is cut afterwards.
        """
        self.is_draining = True
        await asyncio.sleep(0)  # what was accepted a moment ago gets its turn
        for connection in [one for one in self._open if not one.is_serving]:
            connection.force_close()
        if self.serving == 0:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), seconds)

    def admit(self, connection: Connection, address: str) -> bool:
        """Count a new connection in, unless the caps are reached."""
        crowded = self._per_address[address] >= self.settings.connections_per_address_max
        if crowded or len(self._open) >= self._connections_max:
            self.refused += 1
            return False
        self._open.add(connection)
        self._per_address[address] += 1
        return True

    def forget(self, connection: Connection, address: str) -> None:
        """Count a closed connection out; one that was refused was never in."""
        if connection not in self._open:
            return
        self._open.remove(connection)
        self._per_address[address] -= 1
        if self._per_address[address] == 0:
            del self._per_address[address]

    def cut_late(self) -> int:
        """Close every connection whose header is overdue; return how many."""
        deadline = self.now() - self.settings.header_seconds
        late = [connection for connection in self._open if connection.is_late(deadline)]
        for connection in late:
            connection.force_close()
        self.cut += len(late)
        return len(late)

    async def watch(self) -> None:
        """Cut late connections until cancelled."""
        while True:
            await asyncio.sleep(self.settings.header_seconds / _LOOKS_PER_DEADLINE)
            self.cut_late()
