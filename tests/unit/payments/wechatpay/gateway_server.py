"""A gateway to ask over HTTP: it checks our signatures with our public key and signs its own."""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256

from tests.unit.payments.wechatpay.gateway_side import (
    MCHID,
    PUBLIC_KEY_ID,
    rsa_key,
    signed_headers,
)

AUTHORIZATION: Final = re.compile(
    r'WECHATPAY2-SHA256-RSA2048 mchid="(?P<mchid>[^"]+)",nonce_str="(?P<nonce>[0-9a-zA-Z]{1,32})",'
    r'signature="(?P<signature>[^"]+)",timestamp="(?P<timestamp>[0-9]+)",serial_no="(?P<serial>[0-9A-F]+)"'
)


@dataclass(frozen=True)
class Heard:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    nonce: str
    timestamp: int


@dataclass
class Answer:
    """What to say next, and whether to sign it."""

    status: int = 200
    body: bytes = b""
    is_signed: bool = True
    key: str = "platform"
    serial: str = PUBLIC_KEY_ID
    seconds_off: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False  # close the connection instead of answering
    stay_silent: bool = False  # until the gateway closes
    and_leave: bool = False  # nobody listens any more once this is answered


@dataclass
class Gateway:
    """Answers in the order they are put in; the last one is repeated."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    site: web.TCPSite | None = None

    def say(self, *answers: Answer) -> None:
        self.answers = list(answers)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.heard.append(checked(request, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.stay_silent:
            await self.closing.wait()
        if answer.hang_up or answer.stay_silent:
            request.transport.close()
            return web.Response()
        if answer.and_leave:
            assert self.site is not None
            await self.site.stop()
        headers = dict(answer.headers)
        if answer.is_signed:
            timestamp = str(int(time.time()) + answer.seconds_off)
            headers |= signed_headers(
                answer.body, key=answer.key, serial=answer.serial, timestamp=timestamp
            )
        return web.Response(status=answer.status, body=answer.body, headers=headers)


def checked(request: web.Request, body: bytes) -> Heard:
    """What the real gateway checks of every request, in its order."""
    told = AUTHORIZATION.fullmatch(request.headers["Authorization"])
    assert told is not None, request.headers["Authorization"]
    assert told["mchid"] == MCHID
    assert abs(time.time() - int(told["timestamp"])) <= 300
    assert request.headers["Accept"] == "application/json"
    assert request.headers["User-Agent"]
    text = "\n".join((request.method, request.raw_path, told["timestamp"], told["nonce"], ""))
    rsa_key("merchant").public_key().verify(
        base64.b64decode(told["signature"]),
        text.encode() + body + b"\n",
        padding.PKCS1v15(),
        SHA256(),
    )
    return Heard(
        request.method,
        request.raw_path,
        dict(request.headers),
        body,
        told["nonce"],
        int(told["timestamp"]),
    )


@asynccontextmanager
async def open_gateway(
    route: Callable[[web.Request], object] | None = None,
) -> AsyncIterator[Gateway]:
    gateway = Gateway()
    server = web.Server(route or gateway.serve)
    runner = web.ServerRunner(server)
    await runner.setup()
    gateway.site = web.TCPSite(runner, "127.0.0.1", 0)
    await gateway.site.start()
    port = runner.addresses[0][1]
    gateway.url = f"http://127.0.0.1:{port}"
    try:
        yield gateway
    finally:
        gateway.closing.set()
        await runner.cleanup()


async def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
