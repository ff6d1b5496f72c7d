"""
The fast lane: plain requests to the one hot route, answered without the application.

aiohttp makes a task, a request, a response and a dozen header objects for every
request, which costs more than selling an order does. A connection therefore offers
each plain request (`web.plain`) to its listener's lane first. A lane takes only what
it can answer exactly as the application would; what it leaves goes the usual way, so
every refusal of bad input has one author.

Nothing here waits: a lane answers later, from whoever decides, through the `Exchange`.
"""

import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

import structlog

from app.web.catalogue import Language
from app.web.headers import negotiate
from app.web.plain import PlainRequest
from app.web.problem import SERVER, problem_parts
from app.web.request_id import request_id_for

CLIENT_LEFT: Final = 499  # counted, never sent (the word of nginx for it)

_log = structlog.get_logger(__name__)
_STATUS_LINES: Final = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Reply(NamedTuple):
    """What answers one request."""

    status: int
    fields: bytes  # header fields of this answer alone, each with its line end
    body: bytes


def header_fields(headers: Mapping[str, str]) -> bytes:
    """Write header fields, each with its line end; the values are ours and hold no CR or LF."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


class Line(Protocol):
    """What an exchange asks of the connection it runs on."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody is there any more to hear the answer."""
        ...

    def finish_fast(self, reply: bytes, status: int) -> None:
        """Send the whole reply and take the next request."""
        ...


class Stamp:
    """The header fields that every reply of a listener carries, made once a millisecond."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._made_at_ms = -1
        self._second = -1
        self._date = ""
        self._fields = b""

    def fields(self) -> bytes:
        """Return Date, Server and Server-Now-Ms, each with its line end."""
        now_ms = self._now_ms()
        if now_ms != self._made_at_ms:
            self._made_at_ms = now_ms
            self._fields = self._make(now_ms)
        return self._fields

    def _make(self, now_ms: int) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True)
        return (
            f"Server: {SERVER}\r\nX-Content-Type-Options: nosniff\r\n"
            f"Server-Now-Ms: {now_ms}\r\nDate: {self._date}\r\n"
        ).encode()


class Exchange:
    """One plain request under way, and the means to answer it once."""

    __slots__ = ("_line", "_stamp", "request", "request_id")

    def __init__(self, line: Line, request: PlainRequest, stamp: Stamp) -> None:
        self.request = request
        self.request_id = request_id_for(request.headers.get("x-request-id"))
        self._line = line
        self._stamp = stamp

    @property
    def is_gone(self) -> bool:
        """Whether nobody is there any more to hear the answer."""
        return self._line.is_gone

    @property
    def language(self) -> Language:
        """The language of titles and details that the client asked for."""
        return negotiate(self.request.headers.get("accept-language"))

    def answer(self, write: Callable[..., Reply], *told: object) -> None:
        """
        Send the answer that `write(*told)` makes; if it cannot, the client hears of a fault.

        This is a boundary like the middleware: one answer that cannot be written must not
        keep the others of its batch from theirs.
        """
        try:
            status, fields, body = write(*told)
        except Exception:  # noqa: BLE001  the boundary: whatever breaks, the client gets an answer
            _log.exception("request_failed", request_id=self.request_id, path=self.request.path)
            status, fields, body = self.refusal("internal_error")
        reply = b"%bX-Request-Id: %b\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
            _STATUS_LINES[status],
            self.request_id.encode(),
            self._stamp.fields(),
            fields,
            len(body),
            body,
        )
        self._line.finish_fast(reply, status)

    def refusal(
        self,
        code: str,
        *,
        request_id: str | None = None,
        **fields: Any,  # noqa: ANN401  members of the case
    ) -> Reply:
        """Write the problem `code`; the fields are those of `web.problem.problem_parts`."""
        parts = problem_parts(
            code,
            spoken=self.language,
            instance=self.request.path,
            request_id=self.request_id if request_id is None else request_id,
            **fields,
        )
        return Reply(parts.status, header_fields(parts.headers), parts.body)


class FastLane(Protocol):
    """Takes plain requests of one listener."""

    @property
    def stamp(self) -> Stamp:
        """What every reply carries."""
        ...

    def take(self, exchange: Exchange) -> bool:
        """
        Take the request and answer it later, or leave it to the application.

        Returns:
            Whether it was taken; if not, nothing has happened.
        """
        ...

    def count(self, status: int, seconds: float) -> None:
        """Count one request that was answered here."""
        ...
