"""The three paces against a server of a few lines, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from loadtest.bench.deck import Deck
from loadtest.bench.drivers import make_driver
from loadtest.bench.job import ClosedLoop, Job, OpenLoop, Tally, Timetable
from loadtest.tokens import Signer

TICKET = b'HTTP/1.1 202 Accepted\r\nContent-Length: 16\r\n\r\n{"order_id":"A"}'


class Answering(asyncio.Protocol):
    """Answers each request in two pieces, or lets it wait for ever."""

    def __init__(self, is_asleep: Callable[[], bool]) -> None:
        self.is_asleep = is_asleep

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        assert data.count(b"Idempotency-Key") == 1
        if not self.is_asleep():
            self.transport.write(TICKET[:30])
            asyncio.get_running_loop().call_soon(self.transport.write, TICKET[30:])


@asynccontextmanager
async def a_server(is_asleep: Callable[[], bool] = lambda: False) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(is_asleep), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def play(port: int, pace, *, count: int = 5_000, **more) -> Tally:
    signer = Signer("k", b"x" * 32)
    deck = Deck(host="h", sale="s", signer=signer, run="r", count=count)
    job = Job(**{"port": port, "connections": 4, "pace": pace, "deck": deck, **more})
    return await make_driver(job, deck.requests()).play()


async def test_a_closed_loop_without_an_end_plays_the_whole_deck():
    async with a_server() as port:
        tally = await play(port, ClosedLoop(), count=50)
    assert tally.is_played_out
    assert tally.totals == {"placed": 50}
    assert tally.count("placed") == 50
    assert tally.seconds > 0


async def test_answers_outside_the_window_are_counted_apart():
    async with a_server() as port:
        tally = await play(port, ClosedLoop(), warm_seconds=0.1, seconds=0.1, count=50_000)
    assert not tally.is_played_out
    assert 0 < tally.count("placed") < tally.totals["placed"]
    assert sum(tally.slots["placed"].values()) == tally.count("placed")


async def test_an_open_loop_sends_at_its_rate_and_counts_from_the_plan():
    async with a_server() as port:
        tally = await play(port, OpenLoop(500.0), seconds=0.4)
    assert tally.totals["placed"] == pytest.approx(200, rel=0.4)
    assert min(tally.waits_ms["placed"]) >= min(tally.sent_late_ms) >= 0


async def test_who_waits_too_long_gives_up_and_comes_back_anew():
    async with a_server(lambda: True) as port:
        pace = Timetable(interval_seconds=0.01, patience_seconds=0.05)
        tally = await play(port, pace, seconds=0.4)
    assert tally.totals["gave_up"] > 4
    assert set(tally.totals) == {"gave_up"}


async def test_a_shopper_clicks_no_more_often_than_the_timetable_says():
    async with a_server() as port:
        tally = await play(port, Timetable(interval_seconds=0.05), seconds=0.5)
    assert 0 < tally.totals["placed"] <= 4 * 11


async def test_after_the_surge_only_those_who_stay_click():
    async with a_server() as port:
        pace = Timetable(interval_seconds=0.02, stay=1, surge_seconds=0.4)
        tally = await play(port, pace, seconds=0.8, connections=8)
    crowd, few = tally.per_second("placed", 0.1, 0.4), tally.per_second("placed", 0.5, 0.8)
    assert few < crowd / 3
