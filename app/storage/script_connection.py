"""
One connection to Redis that runs one script at a time, with nothing between it and the socket.

The hot path makes a call for every few clicks, and redis-py needs four times as long for one
as the server does: it looks whether the connection still lives, packs, waits for the writer,
arms a timeout and reads through a stream (docs/decisions/0041). Here a call is one write, one
future and one timer. What must be right is little, and tested on a real server and on servers
that misbehave: whose reply it is, and whether a command was sent.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import parse_url

from app.kernel.errors import (
    BadConfiguration,
    BrokenState,
    DoorbusterError,
    OutcomeUnknown,
    RedisRefused,
    RedisUnavailable,
    ScriptMissing,
)
from app.storage.redis import REFUSALS, RedisArgument

_PORT: Final = 6_379
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
# RuntimeError is uvloop's word for the use of a connection that was reset a moment before.
_LOST: Final = (OSError, TimeoutError, RuntimeError, hiredis.ProtocolError)


class ScriptConnection:
    """
    A connection that is opened on demand and never repeats a command.

    One that leaves any doubt (no answer in time, a cancelled call, bytes nobody asked for) is
    dropped, so that a reply can never meet another request.

    Args:
        url: redis://, rediss:// or unix://, with user, password and database; of TLS the
            options ssl_ca_certs, ssl_certfile and ssl_keyfile.
        client_name: shown by CLIENT LIST.
        connect_timeout_ms: for the connection and its handshake.

    Raises:
        BadConfiguration: an option of TLS that is not known here.
    """

    def __init__(self, url: str, *, client_name: str, connect_timeout_ms: int = 500) -> None:
        self._options: Mapping[str, Any] = parse_url(url)
        self._tls = _tls_of(self._options) if url.startswith("rediss:") else None
        self._client_name = client_name
        self._connect_seconds = connect_timeout_ms / 1000
        self._wire: _Wire | None = None
        self._busy = False

    async def evalsha(
        self,
        sha: str,
        keys: Sequence[bytes],
        arguments: Sequence[RedisArgument],
        *,
        timeout_ms: int,
    ) -> Any:  # noqa: ANN401  the reply of a script is what its header says
        """
        Run a loaded script once.

        Raises:
            RedisUnavailable: it could not even be sent.
            OutcomeUnknown: it was sent, and no answer came within timeout_ms.
            ScriptMissing, RedisRefused, BrokenState: as the server answered.
        """
        assert not self._busy, "one call at a time"
        self._busy = True
        try:
            wire = self._wire
            if wire is None or wire.is_lost:
                wire = self._wire = await self._open(timeout_ms / 1000)
            packed = _packed(("EVALSHA", sha, len(keys), *keys, *arguments))
            try:
                reply = await wire.ask(packed, timeout_ms / 1000)
            except _LOST as exc:
                raise OutcomeUnknown(reason=_reason(exc)) from exc
        finally:
            self._busy = False
        if isinstance(reply, hiredis.ReplyError):
            raise _translated(reply)
        return reply

    async def close(self) -> None:
        """Close the connection; the next call would open it again."""
        if self._wire is not None:
            self._wire.drop()
            self._wire = None

    async def _open(self, seconds: float) -> "_Wire":
        """Connect, say who we are, and which database is meant."""
        wire: _Wire | None = None
        try:
            async with asyncio.timeout(min(seconds, self._connect_seconds)):
                wire = await self._connect()
                refusal = await self._introduce(wire, seconds)
        except _LOST as exc:
            if wire is not None:
                wire.drop()
            raise RedisUnavailable(reason=_reason(exc)) from exc
        if refusal is not None:
            wire.drop()
            raise refusal
        return wire

    async def _introduce(self, wire: "_Wire", seconds: float) -> RedisRefused | None:
        for command in self._introduction():
            reply = await wire.ask(_packed(command), seconds)
            if isinstance(reply, hiredis.ReplyError):
                return RedisRefused(reason=_refusal(reply))
        return None

    async def _connect(self) -> "_Wire":
        loop = asyncio.get_running_loop()
        options = self._options
        if "path" in options:
            _, wire = await loop.create_unix_connection(_Wire, options["path"])
        else:
            host, port = options.get("host", "localhost"), options.get("port", _PORT)
            _, wire = await loop.create_connection(_Wire, host, port, ssl=self._tls)
        return wire

    def _introduction(self) -> list[tuple[RedisArgument, ...]]:
        user, password = self._options.get("username"), self._options.get("password")
        said: list[tuple[RedisArgument, ...]] = []
        if password is not None:
            said.append(("AUTH", user, password) if user else ("AUTH", password))
        if self._options.get("db"):
            said.append(("SELECT", self._options["db"]))
        said.append(("CLIENT", "SETNAME", self._client_name))
        return said


class _Wire(asyncio.Protocol):
    """A socket on which one question is open at most."""

    def __init__(self) -> None:
        self.is_lost = False
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Any] | None = None

    async def ask(self, packed: bytes, seconds: float) -> Any:  # noqa: ANN401  any reply
        """
        Send one command and wait for its reply; errors of the server are returned.

        Raises:
            TimeoutError, OSError, hiredis.ProtocolError: there is none, and the wire is dropped.
        """
        assert self._answer is None
        assert self._transport is not None
        answer = self._answer = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._expire)
        try:
            self._transport.write(packed)
            return await answer
        except BaseException:
            self.drop()
            raise
        finally:
            timer.cancel()
            self._answer = None

    def drop(self) -> None:
        """Close without waiting for anything."""
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or answer.done():
            self.drop()  # nobody asked
            return
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
        except hiredis.ProtocolError as exc:
            answer.set_exception(exc)
            return
        if reply is False:  # not whole yet; the protocol of version 2 has no such value
            return
        if self._reader.has_data():  # more than one reply to one command
            self.drop()
        answer.set_result(reply)

    def eof_received(self) -> None:
        self.is_lost = True  # a turn of the loop before connection_lost says so

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed by the server"))

    def _expire(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(TimeoutError("no answer in time"))


def _tls_of(options: Mapping[str, Any]) -> ssl.SSLContext:
    for name in options:
        if name.startswith("ssl_") and name not in _TLS_OPTIONS:
            known = ", ".join(sorted(_TLS_OPTIONS))
            raise BadConfiguration(
                setting="DOORBUSTER_REDIS__API_URL or __URL",
                option=name,
                problem=f"not one of {known}",
            )
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context


def _packed(command: tuple[RedisArgument, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its hint takes one
    return packed


def _reason(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


def _refusal(reply: hiredis.ReplyError) -> str:
    """Name a refusal by its word; of a plain error the whole sentence tells more."""
    text = str(reply)
    word = text.partition(" ")[0]
    return word if word in REFUSALS else text


def _translated(reply: hiredis.ReplyError) -> DoorbusterError:
    word = str(reply).partition(" ")[0]
    if word == "NOSCRIPT":
        return ScriptMissing()
    if word in REFUSALS:
        return RedisRefused(reason=word)
    return BrokenState(reply=str(reply))
