"""The client against a real aiohttp server, and against one that misbehaves on purpose."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from loadtest.client import Client, bearer, document
from loadtest.errors import NoAnswer, Unreachable
from tests.waiting import eventually

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def speaking(speak: Speak, **options) -> AsyncIterator[Client]:
    """A server that reads one request head and then says what it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Client(f"http://127.0.0.1:{port}", **options) as client:
        yield client


async def read_request(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")


def saying(*parts: bytes) -> Speak:
    """Answer each request with the same bytes, in as many writes."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)

    return speak


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    async def echo(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        told = {"path": request.path_qs, "who": request.headers.get("Authorization"), "body": body}
        return web.json_response(told, status=int(request.query.get("status", "200")))

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_thousand_answers_each_reach_their_own_request():
    async with echo_server() as url, Client(url, connections_max=16) as client:

        async def ask(number: int) -> bool:
            reply = await client.call(
                "POST", f"/n/{number}", headers=bearer(f"t{number}"), body={"n": number}
            )
            return document(reply) == {
                "path": f"/n/{number}",
                "who": f"Bearer t{number}",
                "body": {"n": number},
            }

        assert all(await asyncio.gather(*map(ask, range(1_000))))


async def test_status_and_headers_are_read():
    async with echo_server() as url, Client(url) as client:
        reply = await client.call("GET", "/x?status=409")
        assert reply.status == 409
        assert reply.header("content-type") == "application/json; charset=utf-8"
        assert reply.header("Idempotency-Replayed") is None
        assert reply.sent_at <= reply.answered_at


async def test_an_answer_may_come_byte_by_byte():
    async with speaking(saying(*(OK[i : i + 1] for i in range(len(OK))))) as client:
        assert [(await client.call("GET", "/")).body for _ in range(3)] == [b"ok"] * 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        OK + OK,
        b"x" * 70_000,
    ],
    ids=["chunked", "no length", "two lengths", "negative", "interim", "ssh", "two", "endless"],
)
async def test_what_is_not_one_plain_answer_is_no_answer(answer: bytes):
    async with speaking(saying(answer)) as client:
        with pytest.raises(NoAnswer):
            await client.call("GET", "/")


async def test_a_connection_that_the_server_retires_is_not_used_again():
    connections = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok")

    async with speaking(speak) as client:
        for _ in range(3):
            assert (await client.call("GET", "/")).status == 200
    assert connections == 3


async def test_a_connection_closed_while_idle_costs_no_request():
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)

    async with speaking(speak) as client:
        assert (await client.call("GET", "/")).status == 200
        await eventually(lambda: not client.idle)
        assert (await client.call("GET", "/")).status == 200


async def test_a_lost_connection_is_no_answer():
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK[:-1])

    async with speaking(speak) as client:
        with pytest.raises(NoAnswer) as told:
            await client.call("GET", "/")
    assert told.value.sent_at > 0


async def test_a_late_answer_never_meets_the_next_request():
    answers = iter([b"late", b"true"])

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        answer = next(answers)
        if answer == b"late":
            await reader.read()  # until the client has given up
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + answer)

    async with speaking(speak, connections_max=1, timeout_seconds=0.05) as client:
        with pytest.raises(NoAnswer, match="timeout"):
            await client.call("GET", "/")
        client.timeout_seconds = 5.0
        assert (await client.call("GET", "/")).body == b"true"


async def test_a_request_that_was_given_up_takes_its_connection_along():
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()
        writer.write(OK)

    async with speaking(speak, connections_max=1) as client:
        asking = asyncio.create_task(client.call("GET", "/"))
        await eventually(lambda: client.under_way == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not client.idle
        assert client.under_way == 0


async def test_nobody_listening_is_not_an_unknown():
    async with echo_server() as url:
        pass
    async with Client(url) as client:
        with pytest.raises(Unreachable):
            await client.call("GET", "/")
