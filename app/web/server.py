"""
A listener: an application on a port, with caps, deadlines and an orderly end.

The api runs several processes on one port by SO_REUSEPORT; the kernel shares new
connections out among them.
"""

import asyncio
import contextlib
import resource
import socket
from typing import Final

from aiohttp import web

from app.web.connection import Connection, Connections
from app.web.fast_lane import FastLane
from app.web.health import Readiness
from app.web.settings import WebSettings

BACKLOG: Final = 4_096  # a rush opens thousands of connections within one turn of the loop
_LAST_SECONDS: Final = 1.0  # for answers still being written after the drain
_FILES_RESERVED: Final = 256  # pools, logs and whatever else needs a descriptor


class Listener:
    """
    One application, served.

    Args:
        app: from `build_application`.
        settings: deadlines and caps.
        readiness: fails first when the listener drains; None for a side listener.
        lane: takes the plain requests it knows past the application; None for no lane.
    """

    def __init__(
        self,
        app: web.Application,
        settings: WebSettings,
        readiness: Readiness | None = None,
        lane: FastLane | None = None,
    ) -> None:
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=_LAST_SECONDS)
        self._settings = settings
        self._readiness = readiness
        self._lane = lane
        self._server: asyncio.Server | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.connections: Connections | None = None
        self.host = ""
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients find it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> None:
        """
        Begin to serve.

        Args:
            host: a name or address; the first it resolves to is used.
            port: 0 picks a free one; `self.port` tells which.
            reuse_port: share the port with other processes of ours.

        Raises:
            OSError: the port is taken or not ours to take.
        """
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None
        connections = Connections(self._settings, connection_cap(self._settings), self._lane)
        listening = _bind(host, port, reuse_port=reuse_port)
        self.host, self.port = listening.getsockname()[:2]
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(manager, connections),
            sock=listening,
            backlog=BACKLOG,
        )
        self.connections = connections
        self._watcher = asyncio.create_task(connections.watch(), name="connections-watch")

    async def stop(self) -> None:
        """Fail readiness, take no more connections, let requests in flight finish, close."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._readiness is not None:
            self._readiness.draining = True
        if self._server is not None:
            self._server.close()
        if self.connections is not None:
            await self.connections.drain(self._settings.drain_seconds)
        await self._runner.cleanup()
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher


def connection_cap(settings: WebSettings) -> int:
    """Keep the cap below the limit of open files: a full table would stop accepting at all."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return settings.connections_max
    return max(1, min(settings.connections_max, files - _FILES_RESERVED))


def _bind(host: str, port: int, *, reuse_port: bool) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host,
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
        listening.setblocking(False)  # noqa: FBT003  the standard library takes no keyword
    except OSError:
        listening.close()
        raise
    return listening
