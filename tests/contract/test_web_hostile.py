"""Clients that mean harm or know no better: slow, huge, broken, many."""

import asyncio
import json

import pytest

from app.web.health import Readiness, health_endpoints
from tests.contract.web_listener import (
    DEADLINE_SECONDS,
    ENDPOINTS,
    get,
    line_to,
    listening,
    post,
)

JSON = "Content-Type: application/json"
ANN = "Authorization: Bearer shopper.ann"


async def until(is_so) -> None:
    """Wait for a condition, turn by turn of the loop."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0)


async def test_a_header_that_never_ends_is_cut_at_the_deadline():
    async with listening() as listener, line_to(listener) as line:
        line.send(b"GET / HTTP/1.1\r\nHost: te")
        assert await line.rest() == b""
        assert listener.connections.cut == 1


async def test_a_drip_of_header_bytes_does_not_move_the_deadline():
    async with listening() as listener, line_to(listener) as line:
        line.send(b"GET / HTTP/1.1\r\n")
        while listener.connections.cut == 0:
            line.send(b"X-A: b\r\n")
            await asyncio.sleep(0.01)  # the slow client itself
        assert listener.connections.cut == 1


async def test_a_connection_that_says_nothing_is_cut():
    async with listening() as listener, line_to(listener) as line:
        assert await line.rest() == b""


async def test_an_idle_kept_connection_outlives_the_header_deadline():
    async with listening(header_seconds=0.05) as listener, line_to(listener) as line:
        line.send(get("/nowhere"))
        await line.reply()
        idle_since = listener.connections.now()
        await until(lambda: listener.connections.now() - idle_since > 0.2)
        line.send(get("/nowhere"))
        assert (await line.reply())[0] == 404


async def test_a_body_that_never_ends_is_408():
    async with listening() as listener, line_to(listener) as line:
        line.send(post("/orders", b"", JSON, ANN).replace(b"Length: 0", b"Length: 30") + b'{"q')
        status, headers, body = await line.reply()
        assert (status, json.loads(body)["code"]) == (408, "request_timeout")
        assert headers["connection"] == "close"
        assert await line.rest() == b""


async def test_a_body_with_a_declared_size_over_the_limit_is_413_before_it_is_sent():
    async with listening() as listener, line_to(listener) as line:
        line.send(post("/orders", b"", JSON, ANN).replace(b"Length: 0", b"Length: 4097"))
        status, _, body = await line.reply()
        assert (status, json.loads(body)["code"]) == (413, "body_too_large")


async def test_chunks_that_exceed_the_limit_are_413():
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    head = (
        f"POST /orders HTTP/1.1\r\nHost: t\r\n{JSON}\r\n{ANN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    async with listening() as listener, line_to(listener) as line:
        line.send(head.encode() + chunk * 2)
        status, _, body = await line.reply()
        assert (status, json.loads(body)["code"]) == (413, "body_too_large")


async def test_broken_chunks_are_400():
    head = (
        f"POST /orders HTTP/1.1\r\nHost: t\r\n{JSON}\r\n{ANN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    async with listening() as listener, line_to(listener) as line:
        line.send(head.encode())
        line.send(b"zz\r\n")
        status, _, body = await line.reply()
        assert (status, json.loads(body)["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("raw", "expected", "code"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 431, "header_too_large"),
        (get("/", "X-Big: " + "b" * 9000), 431, "header_too_large"),
        (get("/", *[f"X-{n}: 1" for n in range(200)]), 431, "header_too_large"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request"),
        (b"hello there\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad_request"),
    ],
)
async def test_what_the_parser_cannot_read_is_a_problem_and_the_line_is_closed(
    raw,
    expected,
    code,
):
    async with listening() as listener, line_to(listener) as line:
        line.send(raw)
        status, headers, body = await line.reply()
        assert (status, json.loads(body)["code"]) == (expected, code)
        assert headers["x-request-id"] == json.loads(body)["request_id"] != ""
        assert await line.rest() == b""


async def test_connections_over_the_total_are_refused_and_the_others_served():
    async with listening(connections_max=1) as listener, line_to(listener) as first:
        await until(lambda: len(listener.connections) == 1)
        async with line_to(listener) as second:
            assert await second.rest() == b""
        assert listener.connections.refused == 1
        first.send(get("/nowhere"))
        assert (await first.reply())[0] == 404


async def test_connections_over_the_cap_of_one_address_are_refused():
    limits = {"connections_per_address_max": 1}
    async with listening(**limits) as listener, line_to(listener):
        await until(lambda: len(listener.connections) == 1)
        async with line_to(listener) as second:
            assert await second.rest() == b""


async def test_a_closed_connection_gives_its_place_back():
    async with listening(connections_max=1) as listener:
        for _ in range(3):
            async with line_to(listener) as line:
                line.send(get("/nowhere"))
                assert (await line.reply())[0] == 404
            await until(lambda: len(listener.connections) == 0)


async def test_a_listener_that_stops_fails_readiness_first_and_finishes_what_it_began():
    readiness = Readiness()
    readiness.started = True
    body = b'{"quantity": 2}'
    endpoints = [*ENDPOINTS, *health_endpoints(readiness, {})]
    limits = {"readiness": readiness, "header_seconds": 5, "body_seconds": 5}
    async with listening(endpoints, **limits) as listener, line_to(listener) as line:
        line.send(post("/orders", body, JSON, ANN)[: -len(body)])
        await until(lambda: listener.connections.serving == 1)
        stopping = asyncio.create_task(listener.stop())
        await until(lambda: readiness.draining)
        assert not readiness.is_ready
        line.send(body)
        assert (await line.reply())[0] == 201
        await stopping
