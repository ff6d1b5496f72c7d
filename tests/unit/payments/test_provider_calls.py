"""One door for HTTP towards providers: not sent, unknown, refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from app.payments.provider import Outcome
from app.payments.providers.http import (
    Answer,
    Call,
    CallLimits,
    Lost,
    ProviderCalls,
    is_public,
    may_be_fetched,
    origin_of,
    outcome_of_status,
    url_mistake,
)
from tests.waiting import eventually

LIMITS = CallLimits(connect_ms=500, answer_ms=1_000, download_ms=1_000, answer_bytes_max=1_000,
                    download_bytes_max=2_000)  # fmt: skip

SILENCED: list[str] = []  # hosts, one for each request that waits there


async def _echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.Response(status=409, body=request.raw_path.encode() + b"|" + body)


async def _long(_request: web.Request) -> web.Response:
    return web.Response(body=b"x" * 1_001)


async def _unannounced(request: web.Request) -> web.StreamResponse:
    """Send more than anybody reads, without saying beforehand how much."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(4):
            await response.write(b"x" * 500)
    return response


async def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _away(_request: web.Request) -> web.Response:
    raise web.HTTPFound(location="/echo")


async def _silent(request: web.Request) -> web.Response:
    SILENCED.append(request.host)
    await asyncio.Event().wait()
    raise AssertionError


@contextlib.asynccontextmanager
async def _gateway() -> AsyncIterator[str]:
    app = web.Application()
    for path, answer in (
        ("/echo", _echo), ("/long", _long), ("/unannounced", _unannounced), ("/cut", _cut),
        ("/away", _away), ("/silent", _silent),
    ):  # fmt: skip
        app.router.add_route("*", path, answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def gateway() -> AsyncIterator[str]:
    async with _gateway() as url:
        yield url


@pytest.fixture
async def calls() -> AsyncIterator[ProviderCalls]:
    async with ProviderCalls(LIMITS) as opened:
        yield opened


async def test_what_is_signed_is_what_is_sent(gateway: str, calls: ProviderCalls):
    path = "/echo?no=a%7Cb*c&x=%2F"
    heard = await calls.send(Call(method="POST", url=gateway + path, body=b"\x00raw"))
    assert heard == Answer(409, heard.headers, path.encode() + b"|\x00raw")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/long", "answer_too_long"),
        ("/unannounced", "answer_too_long"),
        ("/cut", "ServerDisconnectedError"),
        ("/silent", "TimeoutError"),
    ],
)
async def test_what_was_sent_and_not_answered_is_unknown(gateway, calls, path, code):
    heard = await calls.send(Call(method="GET", url=gateway + path))
    assert isinstance(heard, Lost)
    assert heard.outcome is Outcome.UNKNOWN
    assert code in (heard.code, "TimeoutError")


async def test_a_provider_that_hangs_takes_no_connection_of_another_one():
    limits = CallLimits(connect_ms=500, answer_ms=5_000, download_ms=5_000, connections_max=2)
    async with _gateway() as hung, _gateway() as well, ProviderCalls(limits) as calls:
        silent = Call(method="GET", url=f"{hung}/silent")
        waiting = [asyncio.ensure_future(calls.send(silent)) for _ in range(6)]
        await eventually(lambda: SILENCED.count(hung.removeprefix("http://")) == 2)
        heard = await calls.send(Call(method="GET", url=f"{well}/echo"))
        assert isinstance(heard, Answer), heard
        assert not any(one.done() for one in waiting)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "gopher://x"])
async def test_what_surely_never_left_is_not_sent(calls, url):
    heard = await calls.send(Call(method="GET", url=url))
    assert isinstance(heard, Lost)
    assert heard.outcome is Outcome.NOT_SENT


async def test_an_address_that_nobody_can_read_is_not_sent(calls):
    for url in ("https://evil.test\\.example.com/", "https://[::1", "https://a b/"):
        heard = await calls.send(Call(method="GET", url=url))
        assert isinstance(heard, Lost), url
        assert heard.outcome is Outcome.NOT_SENT


async def test_a_redirect_is_an_answer_and_is_not_followed(gateway, calls):
    heard = await calls.send(Call(method="GET", url=f"{gateway}/away"))
    assert isinstance(heard, Answer)
    assert heard.status == 302
    assert outcome_of_status(302) is Outcome.UNKNOWN


async def test_an_address_that_a_provider_told_us_is_asked_only_where_it_may_be(gateway, calls):
    call = Call(method="GET", url=f"{gateway}/echo")
    refused = await calls.fetch(call, hosts=("127.0.0.1", ".example.com"))
    assert refused == Lost(Outcome.NOT_SENT, "host_not_allowed")
    allowed = await calls.fetch(call, hosts=(), own_origins=(gateway + "/elsewhere",))
    assert isinstance(allowed, Answer)


async def test_a_name_that_leads_inside_is_not_connected_to(calls):
    heard = await calls.fetch(
        Call(method="GET", url="https://localhost/bill"), hosts=("localhost",)
    )
    assert isinstance(heard, Lost)
    assert heard.outcome is Outcome.NOT_SENT


def test_the_meaning_of_a_status_before_it_is_read():
    unclear = [code for code in (200, 204, 301, 400, 404, 408, 409, 429, 500, 503)
               if outcome_of_status(code) is Outcome.UNKNOWN]  # fmt: skip
    assert unclear == [301, 408, 429, 500, 503]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://dl.example.com/bill?x=1", True),
        ("https://example.com/", False),
        ("https://deep.dl.example.com/", True),
        ("https://exact.test/", True),
        ("https://evilexample.com/", False),
        ("https://dl.example.com.evil.net/", False),
        ("http://dl.example.com/", False),
        ("https://dl.example.com:8443/", False),
        ("https://me@dl.example.com/", False),
        ("https://10.0.0.1/", False),
        ("https://[::1]/", False),
        ("https://dl.example.com:x/", False),
        ("file:///etc/passwd", False),
        # other readers end the host elsewhere, or refuse to read it
        ("https://evil.test\\.example.com/", False),
        ("https://evil.test%2f.example.com/", False),
        ("https://evil.test;.example.com/", False),
        ("https://.example.com/", False),
    ],
)
def test_which_told_addresses_may_be_fetched(url, allowed):
    assert may_be_fetched(url, (".example.com", "exact.test")) is allowed


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104  an address to refuse, not one to bind
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("2001:0:4136:e378::", False),
        ("no address", False),
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("url", "sound"),
    [
        ("https://api.example.com", True),
        ("https://api.example.com:8443/base", True),
        ("http://127.0.0.1:8081", True),
        ("http://sandbox:8081", True),
        ("http://[::1]:80", True),
        ("http://api.example.com", False),
        ("http://8.8.8.8", False),
        ("https://me:word@api.example.com", False),
        ("https://api.example.com?x=1", False),
        ("https://api.example.com:port", False),
        ("ftp://api.example.com", False),
        ("", False),
    ],
)
def test_which_gateways_the_settings_may_name(url, sound):
    assert (url_mistake(url) is None) is sound


def test_an_origin_is_scheme_host_and_port():
    assert origin_of("HTTPS://API.example.com:443/x?y") == "https://api.example.com"
    assert origin_of("http://h:8081/x") == "http://h:8081"
    assert origin_of("http://h:port") == ""


def test_a_call_shows_neither_its_headers_nor_its_body():
    call = Call(method="POST", url="https://x", headers={"Authorization": "hush"}, body=b"hush")
    assert "hush" not in repr(call)
    assert "hush" not in repr(Answer(200, {"a": "hush"}, b"hush"))
