"""
One connection of the bench's generator: bytes out, the name of the answer back.

It costs 11-20 us an exchange, most of it the kernel's, because it composes nothing
and reads only what tells answers apart. A 202 counts as placed only when it names
an order and is no replay.
"""

import asyncio
import time
from typing import Final, Protocol, cast

PLACED: Final = "placed"
CONFIRMED: Final = "confirmed"  # 201: the row is committed
REPLAY: Final = "replay"
UNREADABLE: Final = "unreadable"
CUT: Final = "cut"  # the connection ended before the answer
GAVE_UP: Final = "gave_up"  # no answer within the shopper's patience

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\nContent-Length: "
_ORDER_ID: Final = b'"order_id":"'
_CODE: Final = b'"code":"'
_REPLAYED: Final = b"\r\nIdempotency-Replayed: true\r\n"


class Driver(Protocol):
    """Who decides what a line sends next."""

    def answered(self, line: "Line", answer: str, now: float) -> None:
        """Take one answer; `now` is when its last byte came."""
        ...

    def lost(self, line: "Line") -> None:
        """Take note that a connection has ended that nobody here had cut."""
        ...


class Line(asyncio.Protocol):
    """
    A connection that carries one click at a time.

    Attributes:
        planned_at: when the click under way was meant to be sent, monotonic seconds.
        sent_at: when it was.
        clicks: sent so far, so that a late timer knows whether its click is still under way.
        waits: a click is under way.
    """

    __slots__ = ("_driver", "_received", "_transport", "clicks", "planned_at", "sent_at", "waits")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.planned_at = 0.0
        self.sent_at = 0.0
        self.clicks = 0
        self.waits = False

    def click(self, request: bytes, planned_at: float, now: float) -> None:
        """Send one whole request."""
        assert self._transport is not None
        self.planned_at, self.sent_at = planned_at, now
        self.clicks += 1
        self.waits = True
        self._transport.write(request)

    def cut(self) -> None:
        """End the connection; its driver hears nothing of it."""
        self._driver = _NOBODY
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._driver.lost(self)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        whole = whole_length(received)
        if whole == 0 or len(received) < whole:
            self._received = received
            return
        self._received = b""
        self.waits = False
        answer = name_answer(received) if len(received) == whole else UNREADABLE
        self._driver.answered(self, answer, time.monotonic())


class _Nobody:
    """The driver of a line that was cut."""

    def answered(self, line: Line, answer: str, now: float) -> None:
        """Take no notice."""

    def lost(self, line: Line) -> None:
        """Take no notice."""


_NOBODY: Final = _Nobody()


def whole_length(received: bytes) -> int:
    """
    Tell how long the whole answer is.

    Returns:
        0 while its head is not complete; what is received when it has no length of its own.
    """
    end = received.find(_END_OF_HEAD)
    if end < 0:
        return 0
    at = received.find(_LENGTH, 0, end + 2)
    if at < 0:
        return len(received)
    at += len(_LENGTH)
    return end + 4 + int(received[at : received.find(b"\r", at)])


def name_answer(reply: bytes) -> str:
    """
    Name a whole answer.

    Returns:
        placed, confirmed, replay, the code of a refusal, or `http_<status>`.
    """
    status = reply[9:12]
    if status == b"202":
        if _ORDER_ID not in reply:
            return UNREADABLE
        return REPLAY if _REPLAYED in reply else PLACED
    if status == b"201":
        return CONFIRMED
    at = reply.find(_CODE)
    if at < 0:
        return f"http_{status.decode('latin-1')}"
    at += len(_CODE)
    return reply[at : reply.find(b'"', at)].decode("latin-1")
