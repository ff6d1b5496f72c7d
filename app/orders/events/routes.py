"""
The stream of one order: `GET /v1/orders/{order}/events`.

Each message is the order as GET tells it, under the number of its newest event. A
message may already tell of what its number does not count yet; then the next one
repeats it under its own number, so nothing is ever missed.

Source:
    HTML Living Standard, 9.2 (server-sent events): Last-Event-ID resumes, 204 ends.
"""

import asyncio
import contextlib
import random
import re
from dataclasses import dataclass
from typing import Final

import msgspec
from aiohttp import web

from app.kernel.errors import Unavailable
from app.orders.desk import OrderDesk
from app.orders.events.settings import EventSettings
from app.orders.events.store import Mark
from app.orders.events.watch import Watch, Watcher
from app.web.access import Access
from app.web.endpoint import Endpoint
from app.web.keys import SHOPPER
from app.web.problem import problem

MEDIA: Final = "text/event-stream"
_NUMBER: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_UNHEARD: Final = -1
_RETRY_MS: Final = (500, 3_000)  # drawn for each stream: those cut together come back apart


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDesk:
    """What the streams need."""

    orders: OrderDesk
    watch: Watch
    settings: EventSettings


def endpoints(desk: EventDesk) -> list[Endpoint]:
    """Return the public route of the streams."""
    return [
        Endpoint(
            method="GET",
            path="/v1/orders/{order}/events",
            handler=_Routes(desk).stream,
            summary="News of one order as server-sent events, until it is final.",
            access=Access.SHOPPER,
            answers={200: None, 204: None},
            refusals=("order_not_found", "overloaded", "shard_unavailable"),
        )
    ]


class _Routes:
    def __init__(self, desk: EventDesk) -> None:
        self._desk = desk

    async def stream(self, request: web.Request) -> web.StreamResponse:
        order_id, shopper = request.match_info["order"], request[SHOPPER]
        found = await self._desk.orders.read_own(order_id, shopper)
        if found is None:
            return problem("order_not_found", request)
        watcher = self._desk.watch.join(found.key, lambda: request.transport is None)
        if watcher is None:
            return problem("overloaded", request)
        try:
            mark = await self._desk.watch.look_at(watcher)
            heard = _last_heard(request)
            if mark.is_final and heard >= mark.number:
                return web.Response(status=204)  # told already: come back no more
            return await self._tell(request, watcher, heard)
        finally:
            self._desk.watch.leave(watcher)

    async def _tell(self, request: web.Request, watcher: Watcher, heard: int) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": MEDIA,
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # nginx would keep messages back
            }
        )
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        settings = self._desk.settings
        # The client left, does not read, or has listened long enough; or a shard is away.
        # In each case it comes back with the number it heard last.
        with contextlib.suppress(ConnectionResetError, TimeoutError, Unavailable):
            async with asyncio.timeout(settings.stream_seconds_max):
                await self._write(response, f"retry: {_retry_ms()}\n\n")
                await self._follow(request, response, watcher, heard)
        return response

    async def _follow(
        self,
        request: web.Request,
        response: web.StreamResponse,
        watcher: Watcher,
        heard: int,
    ) -> None:
        while (mark := await self._next(response, watcher, heard)) is not None:
            found = await self._desk.orders.read(watcher.key)
            assert found is not None, watcher.key
            view = await self._desk.orders.describe(request.match_info["order"], found)
            told = msgspec.json.encode(view).decode()
            await self._write(response, f"id: {mark.number}\ndata: {told}\n\n")
            heard = mark.number
            if mark.is_final:
                return

    async def _next(
        self, response: web.StreamResponse, watcher: Watcher, heard: int
    ) -> Mark | None:
        """Wait for news, with a comment now and then so that nobody takes the line for dead."""
        while True:
            try:
                async with asyncio.timeout(self._desk.settings.ping_seconds):
                    return await watcher.newer_than(heard)
            except TimeoutError:
                await self._write(response, ": ping\n\n")

    async def _write(self, response: web.StreamResponse, text: str) -> None:
        async with asyncio.timeout(self._desk.settings.write_seconds_max):
            await response.write(text.encode())


def _last_heard(request: web.Request) -> int:
    """Read the number a returning client heard last; what is no number of ours is none."""
    told = request.headers.get("Last-Event-ID", "")
    return int(told) if _NUMBER.fullmatch(told) else _UNHEARD


def _retry_ms() -> int:
    return random.randint(*_RETRY_MS)  # noqa: S311  jitter, not a secret
