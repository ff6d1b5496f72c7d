"""
One client's connection, guarded: deadlines and caps that aiohttp has none of.

aiohttp waits for the end of a header as long as an idle connection may last, so
a slow client holds a connection for over a minute with a byte now and then. A
`Connection` remembers since when a header has been under way and `Connections`
looks at all of them a few times per deadline: two assignments per request
instead of a timer each.

A plain request that finds the connection between two requests is offered to the
listener's fast lane (`web.fast_lane`). Whatever the lane leaves is aiohttp's, and the
connection comes back to the lane only when it is certain that aiohttp is done: the
request filled one read, its answer is written, and nothing came meanwhile.

What comes for the lane within one turn of the loop is read together, and what is answered
within one turn is written together (`kernel.turn`).
"""

import asyncio
import contextlib
import time
from collections import Counter
from http import HTTPStatus
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from app.kernel.turn import Turn
from app.web.fast_lane import CLIENT_LEFT, Exchange, FastLane
from app.web.keys import REQUEST_ID
from app.web.plain import is_whole, read_plain
from app.web.problem import SERVER, problem
from app.web.request_id import name_request
from app.web.settings import WebSettings

_LOOKS_PER_DEADLINE: Final = 4
_HELD_BYTES_MAX: Final = 65_536  # sent ahead of an answer; more is not read from the socket
# aiohttp's own timer knows nothing of the fast lane and would cut a busy line; an idle
# one is found by `Connections.cut_late`.
_NEVER_SECONDS: Final = 10 * 366 * 86_400.0


class Connection(web.RequestHandler):
    """aiohttp's protocol, with a header deadline, a place in the count and our refusals."""

    __slots__ = (
        "_address",
        "_began",
        "_came_whole",
        "_connections",
        "_header_since",
        "_held",
        "_idle_since",
        "_is_between",
        "_is_owed",
        "is_serving",
    )

    def __init__(self, manager: web.Server, connections: "Connections") -> None:
        settings = connections.settings
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_NEVER_SECONDS,
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
        self._idle_since = 0.0
        self._is_between = True  # the next byte begins a request, and no answer is owed
        self._came_whole = False  # what aiohttp has was one whole request, and no more
        self._is_owed = False  # a request came for the fast lane and has no answer yet
        self._began = 0.0  # when it came (perf_counter)
        self._held = b""
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
        if self._is_owed:
            self._end_fast(CLIENT_LEFT)
        self._connections.forget(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp's own call, to go on parsing what it holds
            super().data_received(data)
        elif self._is_owed:
            self._hold(data)
        elif self._is_between and self._connections.lane is not None:
            # Served from here on, so that nobody closes it meanwhile.
            self._is_owed = True
            self._began = time.perf_counter()
            self.request_started()
            self._connections.arrivals.add((self, data))
        else:
            self._leave_to_aiohttp(data)

    def offer(self, data: bytes, lane: FastLane) -> None:
        """Let the fast lane have what came, if it is a plain request that it takes."""
        if not self._is_owed:
            return  # the client left; its end was noted when the line went
        if not (self.is_gone or self.writing_paused or self._connections.is_draining):
            request = read_plain(data)
            if request is not None and lane.take(Exchange(self, request, lane.stamp)):
                return
        self._is_owed = False
        self.is_serving = False
        self._connections.serving -= 1
        self._leave_to_aiohttp(data)
        if self._held:
            self.data_received(self._take_held())

    def _leave_to_aiohttp(self, data: bytes) -> None:
        self._came_whole = self._is_between and is_whole(data)
        self._is_between = False
        if self._header_since is None and not self.is_serving:
            self._header_since = self._connections.now()
        super().data_received(data)

    def _hold(self, data: bytes) -> None:
        """Keep what a client sends before it has its answer; read no more than a little."""
        self._held += data
        if len(self._held) > _HELD_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        if len(held) > _HELD_BYTES_MAX and self.transport is not None:
            self.transport.resume_reading()
        return held

    @property
    def is_gone(self) -> bool:
        """Whether nobody is there any more to hear an answer."""
        return self.transport is None or self.transport.is_closing()

    def finish_fast(self, reply: bytes, status: int) -> None:
        """Send the answer of the fast lane, with the others of this turn."""
        self._connections.departures.add((self, reply, status))

    def send_fast(self, reply: bytes, status: int) -> None:
        """Send the answer of the fast lane now, and take what came meanwhile."""
        transport = self.transport
        if transport is None or not self._is_owed:
            return  # the client left; its end was noted when the line went
        self._end_fast(CLIENT_LEFT if transport.is_closing() else status)
        transport.write(reply)
        if self._held:
            self.data_received(self._take_held())
        elif self._connections.is_draining:
            self.force_close()

    def _end_fast(self, status: int) -> None:
        lane = self._connections.lane
        assert lane is not None
        self._is_owed = False
        lane.count(status, time.perf_counter() - self._began)
        self.request_finished()

    def request_started(self) -> None:
        """Note that a whole header has arrived; from here the body's deadline rules."""
        self.is_serving = True
        self._header_since = None
        self._connections.serving += 1

    def request_finished(self) -> None:
        """Note that the answer is written; the next header may take its time again."""
        self.is_serving = False
        self._header_since = None
        self._is_between = self._is_between or self._came_whole
        self._idle_since = self._connections.now()
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

    def is_idle_since(self, deadline: float) -> bool:
        """Say whether it has neither served nor begun to read since before `deadline`."""
        return not self.is_serving and self._header_since is None and self._idle_since < deadline

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


def _send_all(departures: "list[tuple[Connection, bytes, int]]") -> None:
    for connection, reply, status in departures:
        connection.send_fast(reply, status)


class Connections:
    """All connections of one listener: makes them, counts them, cuts the late ones."""

    def __init__(
        self,
        settings: WebSettings,
        connections_max: int,
        lane: FastLane | None = None,
    ) -> None:
        self.settings = settings
        self.lane = lane
        self.now = asyncio.get_running_loop().time
        self.refused = 0
        self.cut = 0
        self.serving = 0
        self.is_draining = False
        self.arrivals: Turn[tuple[Connection, bytes]] = Turn(self._offer_all)
        self.departures: Turn[tuple[Connection, bytes, int]] = Turn(_send_all)
        self._drained = asyncio.Event()
        self._connections_max = connections_max
        self._open: set[Connection] = set()
        self._per_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def _offer_all(self, arrivals: list[tuple[Connection, bytes]]) -> None:
        """Let the fast lane have what came in this turn."""
        lane = self.lane
        assert lane is not None
        for connection, data in arrivals:
            connection.offer(data, lane)

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
        """Close every connection that is overdue with a header or idle; return how many."""
        now = self.now()
        header_deadline = now - self.settings.header_seconds
        idle_deadline = now - self.settings.keepalive_seconds
        late = [one for one in self._open if one.is_late(header_deadline)]
        idle = [one for one in self._open if one.is_idle_since(idle_deadline)]
        for connection in late + idle:
            connection.force_close()
        self.cut += len(late)
        return len(late)

    async def watch(self) -> None:
        """Cut late connections until cancelled."""
        while True:
            await asyncio.sleep(self.settings.header_seconds / _LOOKS_PER_DEADLINE)
            self.cut_late()
