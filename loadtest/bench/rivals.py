"""
What the service is held against: the barest aiohttp application, and the barest server.

    python -m loadtest.bench.rivals bare PORT      one POST route, the body read, fixed bytes
    python -m loadtest.bench.rivals trivial PORT   any bytes in, fixed bytes out: no HTTP at all

Both answer with as many bytes as a ticket of the service.
"""

import asyncio
import sys
from typing import Final, cast

import uvloop
from aiohttp import web

BACKLOG: Final = 4_096
TICKET: Final = (
    b'{"order_id":"00000000000000000000000000","status":"queued","sale":"bench-00000000-0",'
    b'"quantity":1,"total_minor":8880,"currency":"CNY",'
    b'"placed_at":"2026-11-11T00:00:00.000000Z","pay_by":"2026-11-11T00:15:00.000000Z"}'
)
_REPLY: Final = (
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Date: Wed, 11 Nov 2026 00:00:00 GMT\r\nServer: trivial\r\n\r\n%b" % (len(TICKET), TICKET)
)


async def answer(request: web.Request) -> web.Response:
    """Read the body, answer fixed bytes."""
    await request.read()
    return web.Response(status=202, body=TICKET, content_type="application/json")


class _Trivial(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002  whatever it is
        self._transport.write(_REPLY)


async def serve_bare(port: int) -> None:
    """Serve one route of `web.Application`, sharing the port."""
    application = web.Application()
    application.router.add_post("/v1/sales/{sale}/orders", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_port=True, backlog=BACKLOG).start()
    await asyncio.Event().wait()


async def serve_trivial(port: int) -> None:
    """Answer bytes with bytes, sharing the port."""
    loop = asyncio.get_running_loop()
    await loop.create_server(_Trivial, "127.0.0.1", port, reuse_port=True, backlog=BACKLOG)
    await asyncio.Event().wait()


def main() -> None:
    kind, port = sys.argv[1:]
    serve = {"bare": serve_bare, "trivial": serve_trivial}[kind]
    uvloop.run(serve(int(port)))


if __name__ == "__main__":
    main()
