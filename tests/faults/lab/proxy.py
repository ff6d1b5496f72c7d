"""
A small TCP proxy between one process and one store, with faults that are switched at run time.

Every process of a site reaches every store through a link of its own, so that one worker can be
cut off from one shard while all others go on. A link knows nothing of Redis or Postgres: it looks
for bytes in a request and does something unkind.

    hold(Way.TO_STORE)      a partition in one direction: bytes wait, as TCP's would, until released
    hold()                  a black hole: nothing comes through, connections seem to open
    hold_at(b"...")         a partition that begins with the request that holds these bytes
    cut_requests(b"...")    a request is forwarded half, then the connection breaks
    drop_replies(b"...")    a request is forwarded, its reply is thrown away, the connection breaks
    reset(), refuse()       connections break; nobody listens
    latency_seconds         each piece of bytes takes that much longer, each way

Links live on a thread of their own, because tests come and go and connections stay.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, Self, TypeVar

from app.embedded.ports import LOCALHOST, free_port
from tests.faults.lab.timing import let_pass

T = TypeVar("T")

PIECE_BYTES: Final = 65_536
LINGER_NOT: Final = struct.pack("ii", 1, 0)  # close with RST, not with FIN
CALL_SECONDS: Final = 10.0


class Way(Enum):
    """The direction in which bytes go."""

    TO_STORE = auto()
    TO_CLIENT = auto()


class _Broken(Exception):
    """The link has cut this connection on purpose."""


class _Act(Enum):
    HOLD = auto()
    CUT_REQUEST = auto()
    DROP_REPLY = auto()


@dataclass(slots=True)
class _Rule:
    """What to do to the next requests that hold some bytes."""

    act: _Act
    wanted: bytes
    times_left: int


@dataclass(slots=True, eq=False)
class _Pair:
    """One connection: what the client opened, and what we opened to the store for it."""

    client: asyncio.StreamWriter
    store: asyncio.StreamWriter
    drops_reply: bool = False

    def abort(self) -> None:
        for writer in (self.client, self.store):
            told = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                told.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            writer.transport.abort()


@dataclass(slots=True)
class Bites:
    """What a link has done so far: a fault that did nothing proves nothing."""

    held_bytes: int = 0
    cut: int = 0
    dropped: int = 0
    broken: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Faults:
    held: set[Way] = field(default_factory=set)
    rules: list[_Rule] = field(default_factory=list)
    refuses: bool = False


class Link:
    """One port of ours that leads to one store; made and used through its `Proxies`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target_port: int) -> None:
        self.port = free_port()
        self.latency_seconds = 0.0
        self.bites = Bites()
        self._loop = loop
        self._target_port = target_port
        self._faults = _Faults()
        self._released = asyncio.Event()
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def outgoing_ports(self) -> set[int]:
        """Ports of ours towards the store: by these it knows its clients."""
        return {pair.store.get_extra_info("sockname")[1] for pair in list(self._pairs)}

    def hold(self, *ways: Way) -> None:
        """Let bytes wait in these directions, in both if none is named, until `release`."""
        self._do(lambda: self._hold(set(ways or Way)))

    def hold_at(self, wanted: bytes) -> None:
        """Let the next request that holds these bytes wait, and whatever comes after it."""
        self._do(lambda: self._faults.rules.append(_Rule(_Act.HOLD, wanted, 1)))

    def release(self) -> None:
        """Deliver what waits, late, and whatever comes from now on."""
        self._do(self._release)

    def cut_requests(self, wanted: bytes, times: int = 1) -> None:
        """Forward only the first half of the next requests that hold these bytes."""
        self._do(lambda: self._faults.rules.append(_Rule(_Act.CUT_REQUEST, wanted, times)))

    def drop_replies(self, wanted: bytes, times: int = 1) -> None:
        """Forward the next requests that hold these bytes, and throw their replies away."""
        self._do(lambda: self._faults.rules.append(_Rule(_Act.DROP_REPLY, wanted, times)))

    def reset(self) -> None:
        """Break every connection that is open."""
        self._do(self._reset)

    def refuse(self) -> None:
        """Break what is open, and whatever is opened from now on."""
        self._do(self._refuse)

    def heal(self) -> None:
        """End every fault; what was held is lost with its connections."""
        self._do(self._heal)

    def _do(self, act: Callable[[], object]) -> None:
        """Act on the links' own thread, and wait until it is done."""

        async def there() -> None:
            act()

        asyncio.run_coroutine_threadsafe(there(), self._loop).result(CALL_SECONDS)

    def _hold(self, ways: set[Way]) -> None:
        self._faults.held |= ways
        self._released.clear()

    def _release(self) -> None:
        self._faults.held.clear()
        self._released.set()

    def _reset(self) -> None:
        self.bites.broken += len(self._pairs)
        for pair in list(self._pairs):
            pair.abort()

    def _refuse(self) -> None:
        self._faults.refuses = True
        self._reset()

    def _heal(self) -> None:
        is_holding = bool(self._faults.held)
        self._faults = _Faults()
        self.latency_seconds = 0.0
        if is_holding:
            self._reset()
        self._released.set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOCALHOST, self.port)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._heal()
        self._reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._faults.refuses:
            self.bites.refused += 1
            client.transport.abort()
            return
        try:
            answers, store = await asyncio.open_connection(LOCALHOST, self._target_port)
        except OSError:
            client.transport.abort()
            return
        async with self._paired(_Pair(client, store)) as pair:
            ways = (
                self._pump(Way.TO_STORE, reader, store, pair),
                self._pump(Way.TO_CLIENT, answers, client, pair),
            )
            await asyncio.gather(*ways)

    @contextlib.asynccontextmanager
    async def _paired(self, pair: _Pair) -> AsyncIterator[_Pair]:
        """Keep count of a connection, and end both its halves with the first that ends."""
        self._pairs.add(pair)
        try:
            with contextlib.suppress(OSError, _Broken):
                yield pair
        finally:
            self._pairs.discard(pair)
            pair.client.close()
            pair.store.close()

    async def _pump(
        self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, pair: _Pair
    ) -> None:
        while piece := await source.read(PIECE_BYTES):
            if self.latency_seconds:
                await let_pass(self.latency_seconds)
            act = self._act_on(piece) if way is Way.TO_STORE else None
            if act is _Act.HOLD:
                self._hold({way})
            if way in self._faults.held:
                self.bites.held_bytes += len(piece)
            while way in self._faults.held:
                await self._released.wait()
            await self._forward(way, piece, act, sink, pair)
        raise _Broken

    async def _forward(
        self, way: Way, piece: bytes, act: _Act | None, sink: asyncio.StreamWriter, pair: _Pair
    ) -> None:
        if way is Way.TO_CLIENT and pair.drops_reply:
            self.bites.dropped += 1
            pair.abort()
            raise _Broken
        if act is _Act.CUT_REQUEST:
            sink.write(piece[: len(piece) // 2])
            await sink.drain()
            self.bites.cut += 1
            pair.client.transport.abort()
            raise _Broken  # the store gets its half, and then the end
        pair.drops_reply |= act is _Act.DROP_REPLY
        sink.write(piece)
        await sink.drain()

    def _act_on(self, piece: bytes) -> _Act | None:
        for rule in self._faults.rules:
            if rule.wanted in piece:
                rule.times_left -= 1
                if rule.times_left == 0:
                    self._faults.rules.remove(rule)
                return rule.act
        return None


class Proxies:
    """Every link of a site, on a thread of their own."""

    def __init__(self) -> None:
        self._links: list[Link] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            self._run(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link_to(self, port: int) -> Link:
        """Open a new link to a store of this machine."""
        link = Link(self._loop, port)
        self._run(link.open())
        self._links.append(link)
        return link

    def heal(self) -> None:
        """End every fault of every link."""
        for link in self._links:
            link.heal()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)
