"""A connection that changes lanes: nothing is answered twice, out of turn, or not at all."""

import asyncio
import json

from app.web.fast_lane import Exchange, Reply, Stamp
from tests.contract.web_listener import DEADLINE_SECONDS, get, line_to, listening, post

KEPT_SECONDS = 0.4
FLOOD_BYTES = 64 << 20


class Holding:
    """A lane that takes `/held` and answers when the test says so."""

    def __init__(self) -> None:
        self.stamp = Stamp(lambda: 1_700_000_000_123)
        self.held: list[Exchange] = []
        self.counted: list[int] = []
        self._taken = asyncio.Event()

    def take(self, exchange: Exchange) -> bool:
        if exchange.request.path != "/held":
            return False
        self.held.append(exchange)
        self._taken.set()
        return True

    def count(self, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.counted.append(status)

    async def next(self) -> Exchange:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self.held:
                self._taken.clear()
                await self._taken.wait()
        return self.held.pop(0)


def say(word: bytes) -> Reply:
    return Reply(200, b"Content-Type: text/plain\r\n", word)


async def test_a_taken_request_is_answered_with_what_every_reply_carries():
    lane = Holding()
    async with listening(lane=lane) as listener, line_to(listener) as line:
        line.send(post("/held", b"", "X-Request-Id: mine"))
        (await lane.next()).answer(lambda: say(b"one"))
        status, fast, body = await line.reply()
        assert (status, body) == (200, b"one")
        line.send(get("/nowhere"))
        _, slow, _ = await line.reply()
        assert fast["x-request-id"] == "mine"
        for name in ("server", "x-content-type-options", "server-now-ms"):
            assert fast[name] == slow[name], name
        assert set(slow) - set(fast) <= {"content-language", "cache-control"}
        assert lane.counted == [200]


async def test_lanes_change_on_one_connection_as_often_as_needed():
    lane = Holding()
    async with listening(lane=lane) as listener, line_to(listener) as line:
        for _ in range(3):
            line.send(get("/nowhere"))
            assert (await line.reply())[0] == 404
            line.send(post("/held", b""))
            (await lane.next()).answer(lambda: say(b"fast"))
            assert (await line.reply())[2] == b"fast"
        assert lane.counted == [200] * 3


async def test_requests_sent_ahead_are_answered_in_their_order():
    lane = Holding()
    async with listening(lane=lane) as listener, line_to(listener) as line:
        line.send(post("/held", b""))
        exchange = await lane.next()
        line.send(get("/nowhere/1") + get("/nowhere/2"))
        line.send(post("/held", b""))
        exchange.answer(lambda: say(b"first"))
        assert (await line.reply())[2] == b"first"
        for instance in ("/nowhere/1", "/nowhere/2", "/held"):  # the last one by the slow lane
            assert json.loads((await line.reply())[2])["instance"] == instance
        assert not lane.held


async def test_a_request_in_two_pieces_goes_the_slow_way_and_is_answered_once():
    lane = Holding()
    async with (
        listening(lane=lane) as listener,
        line_to(listener) as line,
        line_to(listener) as other,
    ):
        whole = post("/held", b"{}")
        line.send(whole[:30])
        other.send(get("/nowhere"))  # its answer says that the first piece was read, too
        await other.reply()
        line.send(whole[30:])
        assert (await line.reply())[0] == 404
        assert not lane.held


async def test_who_leaves_before_the_answer_hears_nothing_and_holds_up_nobody():
    lane = Holding()
    async with listening(lane=lane) as listener:
        async with line_to(listener) as line:
            line.send(post("/held", b""))
            exchange = await lane.next()
            assert listener.connections.serving == 1
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not exchange.is_gone:  # noqa: ASYNC110  what is waited for has no event
                await asyncio.sleep(0)
        exchange.answer(lambda: say(b"late"))
        await asyncio.sleep(0)  # answers leave with the others of their turn
        assert listener.connections.serving == 0
        assert lane.counted == [499]


async def test_who_sends_and_leaves_in_one_breath_holds_up_nobody():
    lane = Holding()
    async with listening(lane=lane) as listener:
        for _ in range(20):
            async with line_to(listener) as line:
                line.send(post("/held", b""))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(listener.connections) or listener.connections.serving:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert set(lane.counted) <= {499}


async def test_an_answer_that_cannot_be_written_is_a_fault_and_the_line_lives_on():
    lane = Holding()
    async with listening(lane=lane) as listener, line_to(listener) as line:
        line.send(post("/held", b""))
        (await lane.next()).answer(lambda: Reply(1 // 0, b"", b""))
        status, _, body = await line.reply()
        assert (status, json.loads(body)["code"]) == (500, "internal_error")
        line.send(get("/nowhere"))
        assert (await line.reply())[0] == 404


async def test_a_drain_waits_for_the_answer_and_closes_the_line():
    lane = Holding()
    async with listening(lane=lane) as listener, line_to(listener) as line:
        line.send(post("/held", b""))
        exchange = await lane.next()
        stopping = asyncio.create_task(listener.stop())
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not listener.connections.is_draining:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0)
        exchange.answer(lambda: say(b"last"))
        assert (await line.reply())[2] == b"last"
        assert await line.rest() == b""
        await stopping


async def test_a_line_that_only_the_lane_serves_is_cut_when_idle_and_not_before():
    lane = Holding()
    async with (
        listening(lane=lane, keepalive_seconds=KEPT_SECONDS, header_seconds=0.2) as listener,
        line_to(listener) as line,
    ):
        now = listener.connections.now
        began = now()
        while now() - began < 2 * KEPT_SECONDS:
            line.send(post("/held", b""))
            (await lane.next()).answer(lambda: say(b"on"))
            assert (await line.reply())[2] == b"on"
        idle_since = now()
        assert await line.rest() == b""
        assert now() - idle_since >= KEPT_SECONDS


async def test_a_flood_sent_ahead_is_not_read_into_memory():
    lane = Holding()
    async with (
        listening(lane=lane) as listener,
        line_to(listener) as line,
        line_to(listener) as other,
    ):
        line.send(post("/held", b""))
        exchange = await lane.next()
        line.send(bytes(FLOOD_BYTES))
        for _ in range(200):  # turns in which the listener could read on
            other.send(get("/nowhere"))
            await other.reply()
        unread = line.writer.transport.get_write_buffer_size()
        assert unread > FLOOD_BYTES / 2, "the kernel holds a few megabytes, we hold nothing"
        exchange.answer(lambda: say(b"first"))
        assert (await line.reply())[2] == b"first"
        line.writer.transport.abort()
