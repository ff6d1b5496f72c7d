"""A wire to a server that can be told to lose replies, or to be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit, urlunsplit

PIECE_BYTES: Final = 65_536


class LossyProxy:
    """
    Forwards bytes both ways.

    Attributes:
        losing: calls of scripts whose request is forwarded and whose reply is lost,
            connection and all.
        is_cut: whether new connections are refused, and old ones ended.
        refused: a connection ends instead of forwarding a piece that holds these bytes.
    """

    def __init__(self, host: str, port: int) -> None:
        self.losing = 0
        self.is_cut = False
        self.refused = b""
        self.port = 0
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._wires: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """End every connection and take no new one."""
        self.is_cut = True
        for writer in self._writers:
            writer.close()

    def mend(self) -> None:
        self.is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._wires.add(task)
        task.add_done_callback(self._wires.discard)
        if self.is_cut:
            writer.close()
            return
        inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, inner_writer}
        try:
            await asyncio.gather(
                self._forward(reader, inner_writer), self._answer(inner_reader, writer)
            )
        finally:
            for one in (writer, inner_writer):
                self._writers.discard(one)
                one.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                if self.refused and self.refused in piece:
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                # What greets a new connection is a status line; a script answers an array.
                if self.losing and piece.startswith(b"*"):
                    self.losing -= 1
                    break
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def settle(self) -> None:
        """Wait until every wire has ended."""
        self.cut()
        await asyncio.gather(*self._wires, return_exceptions=True)


@contextlib.asynccontextmanager
async def lossy_proxy(url: str) -> AsyncIterator[tuple[LossyProxy, str]]:
    """Stand between a client and the server of `url`; gives the URL to use instead."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = LossyProxy(parts.hostname, parts.port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = parts.netloc.rpartition("@")[0]
    async with server:
        yield proxy, urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
        await proxy.settle()
