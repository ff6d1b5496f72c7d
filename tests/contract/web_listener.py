"""A real listener on loopback with short deadlines, and raw sockets to mistreat it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace

import msgspec
from aiohttp import web

from app.telemetry.requests import RequestTally
from app.web.access import Access, Operator
from app.web.application import build_application
from app.web.body import read_body, respond
from app.web.endpoint import Endpoint
from app.web.fast_lane import FastLane
from app.web.headers import idempotency_key
from app.web.health import Readiness
from app.web.keys import OPERATOR, SHOPPER
from app.web.server import Listener
from app.web.settings import WebSettings

DEADLINE_SECONDS = 10.0  # of a test that waits; only a broken listener reaches it

SHORT = WebSettings(
    header_seconds=0.2,
    body_seconds=0.2,
    keepalive_seconds=5,
    linger_seconds=0.2,
    drain_seconds=2,
)


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    quantity: int = 1
    reference: str = ""


class ByName:
    """An authenticator for tests: the token is the name or the scope."""

    def shopper(self, headers: Mapping[str, str]) -> str | None:
        given = headers.get("Authorization", "")
        return given.removeprefix("Bearer shopper.") if "shopper." in given else None

    def operator(self, headers: Mapping[str, str]) -> Operator | None:
        given = headers.get("Authorization", "").removeprefix("Bearer ")
        known = {"viewer", "operator", "merchant:m1"}
        return Operator(name="ann", scope=given) if given in known else None


async def order(request: web.Request) -> web.Response:
    wish = await read_body(request, Wish)
    return respond(request, 201, {"shopper": request[SHOPPER], "quantity": wish.quantity})


async def keyed(request: web.Request) -> web.Response:
    return respond(request, 200, {"key": idempotency_key(request)})


async def operate(request: web.Request) -> web.Response:
    return respond(request, 200, {"name": request[OPERATOR].name})


async def broken(request: web.Request) -> web.Response:
    raise ZeroDivisionError(request.path)


def _endpoint(method, path, handler, access, **more) -> Endpoint:
    return Endpoint(
        method=method,
        path=path,
        handler=handler,
        summary="A route of the tests.",
        access=access,
        answers={200: None},
        **more,
    )


ENDPOINTS = (
    _endpoint("POST", "/orders", order, Access.SHOPPER, body=Wish, speaks_msgpack=True),
    _endpoint("POST", "/keyed", keyed, Access.PUBLIC, idempotent_key=True),
    _endpoint("GET", "/broken/{thing}", broken, Access.PUBLIC),
    _endpoint("GET", "/viewer", operate, Access.VIEWER),
    _endpoint("POST", "/operator", operate, Access.OPERATOR),
    _endpoint("GET", "/merchant", operate, Access.MERCHANT),
    _endpoint("POST", "/merchant", operate, Access.MERCHANT),
)


@contextlib.asynccontextmanager
async def listening(
    endpoints: Iterable[Endpoint] = ENDPOINTS,
    *,
    readiness: Readiness | None = None,
    tally: RequestTally | None = None,
    now_ms=lambda: 1_700_000_000_123,
    lane: FastLane | None = None,
    **changed: float,
) -> AsyncIterator[Listener]:
    settings = replace(SHORT, **changed)
    app = build_application(
        endpoints,
        settings=settings,
        authenticator=ByName(),
        tally=tally or RequestTally(),
        now_ms=now_ms,
    )
    listener = Listener(app, settings, readiness, lane)
    await listener.start("127.0.0.1", 0)
    try:
        yield listener
    finally:
        await listener.stop()


class Line:
    """A raw connection: what is sent is exactly what was written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """Read one reply: status, headers in lower case, body."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *rest = head.decode().split("\r\n")
            headers = {}
            for header in filter(None, rest):
                name, _, value = header.partition(": ")
                headers[name.lower()] = value
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    async def rest(self) -> bytes:
        """Read until the other side closes, or cuts the line."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@contextlib.asynccontextmanager
async def line_to(listener: Listener) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection(listener.host, listener.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Write a POST request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *headers: str) -> bytes:
    """Write a GET request as bytes."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode()
