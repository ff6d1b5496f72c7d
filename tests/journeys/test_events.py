"""Pushed answers: one order's news as they happen, resumed by number, ended by a final state."""

import asyncio
import contextlib
import json
import os
import signal
from typing import NamedTuple

import aiohttp
import pytest

from app.embedded.ports import LOCALHOST, free_port
from app.embedded.probes import answers_ready
from tests.journeys.service import role_beside
from tests.journeys.shop import new_key
from tests.waiting import eventually

PARCEL = {"carrier": "SF", "tracking_number": "SF1"}


class Message(NamedTuple):
    """One message of a stream; its order is the body of GET."""

    number: int
    order: dict


class Stream:
    """An open stream of events, read as a browser reads it."""

    def __init__(self, response):
        self.response = response
        self.status = response.status

    async def next(self):
        """Return the next message; None at the end of the stream."""
        fields = {}
        while line := await self.response.content.readline():
            text = line.decode().rstrip("\n")
            if not text and "data" in fields:
                return Message(int(fields["id"]), json.loads(fields["data"]))
            name, _, value = text.partition(": ")
            fields[name] = value
        return None

    async def until(self, *states):
        """Read on until the order has one of these states; return every message on the way."""
        told = []
        async with asyncio.timeout(30):
            while not told or told[-1].order["status"] not in states:
                message = await self.next()
                assert message is not None, told
                told.append(message)
        return told


@pytest.fixture
async def listen(shop):
    """Open streams; they are closed at the end of the test."""
    async with contextlib.AsyncExitStack() as opened:
        session = await opened.enter_async_context(aiohttp.ClientSession())

        async def open_stream(order_id, shopper="ann", heard=None, base=None):
            headers = {"Authorization": f"Bearer {shop.token(shopper)}"}
            if heard is not None:
                headers["Last-Event-ID"] = str(heard)
            url = f"{base or shop.run.public}/v1/orders/{order_id}/events"
            return Stream(await opened.enter_async_context(session.get(url, headers=headers)))

        yield open_stream


async def test_a_stream_tells_the_whole_life_and_ends(shop, listen):
    sale = await shop.open_sale()
    order_id = (await shop.place(sale, "ann")).body["order_id"]
    stream = await listen(order_id)
    assert stream.response.headers["Content-Type"] == "text/event-stream"
    assert stream.response.headers["Cache-Control"] == "no-store"

    told = await stream.until("pending")
    await shop.pay(order_id, "ann")
    told += await stream.until("paid")
    assert (await shop.operate("POST", f"/orders/{order_id}/ship", PARCEL)).status == 200
    told += await stream.until("shipped")
    url = f"{shop.run.public}/v1/orders/{order_id}/confirm-receipt"
    await shop.ask("POST", url, token=shop.token("ann"))
    told += await stream.until("completed")

    assert await stream.next() is None, "completed is final"
    numbers = [one.number for one in told]
    assert numbers == sorted(set(numbers))
    assert told[-1].order == (await shop.order(order_id, "ann")).body
    timeline = (await shop.read(f"/orders/{order_id}"))["timeline"]
    assert numbers[-1] == timeline[-1]["number"]
    again = await listen(order_id, heard=numbers[-1])
    assert again.status == 204, "a browser comes back no more"


async def test_a_stream_goes_on_after_the_number_that_was_heard(shop, listen):
    sale = await shop.open_sale()
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    [first] = await (await listen(order_id)).until("pending")
    assert first.number == 1

    resumed = await listen(order_id, heard=first.number)
    from_the_start = await listen(order_id, heard="nonsense")
    assert (await from_the_start.next()).number == 1
    await shop.cancel(order_id, "ann")
    told = await resumed.until("closed")
    assert min(one.number for one in told) > first.number
    assert await resumed.next() is None


async def test_nobody_hears_of_another_s_order(shop, listen):
    sale = await shop.open_sale()
    order_id = (await shop.buy(sale, "ann"))["order_id"]

    assert (await listen(order_id, "bob")).status == 404
    anonymous = await shop.ask("GET", f"{shop.run.public}/v1/orders/{order_id}/events")
    assert anonymous.status == 401


async def test_one_too_many_is_told_to_poll_and_a_process_that_leaves_ends_its_streams(
    shop, service, listen
):
    sale = await shop.open_sale(limit_per_shopper=9)
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    public, admin = free_port(), free_port()
    settings = {
        "DOORBUSTER_PROCESS__INDEX": "0",
        "DOORBUSTER_PROCESS__METRICS_PORT": "0",
        "DOORBUSTER_WEB__PORT": str(public),
        "DOORBUSTER_WEB__ADMIN_PORT": str(admin),
        "DOORBUSTER_ORDERS__EVENTS_STREAMS_MAX": "1",
    }
    with role_beside(service, "api", **settings) as pid:
        await eventually(lambda: answers_ready(admin), within_seconds=60)
        base = f"http://{LOCALHOST}:{public}"
        only = await listen(order_id, base=base)
        assert (await only.next()).order["status"] == "pending"
        crowded = await listen(order_id, base=base)
        assert crowded.status == 503
        assert (await crowded.response.json())["code"] == "overloaded"
        assert int(crowded.response.headers["Retry-After"]) >= 1

        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(5):  # long before the drain would give up on it
            assert await only.next() is None


async def test_a_client_that_vanishes_makes_room_before_its_next_ping(shop, service, listen):
    sale = await shop.open_sale()
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    public, admin = free_port(), free_port()
    settings = {
        "DOORBUSTER_PROCESS__INDEX": "0",
        "DOORBUSTER_PROCESS__METRICS_PORT": "0",
        "DOORBUSTER_WEB__PORT": str(public),
        "DOORBUSTER_WEB__ADMIN_PORT": str(admin),
        "DOORBUSTER_ORDERS__EVENTS_STREAMS_MAX": "1",
        "DOORBUSTER_ORDERS__EVENTS_PING_SECONDS": "60",
    }
    with role_beside(service, "api", **settings):
        await eventually(lambda: answers_ready(admin), within_seconds=60)
        base = f"http://{LOCALHOST}:{public}"
        only = await listen(order_id, base=base)
        assert (await only.next()).order["status"] == "pending"
        assert (await listen(order_id, base=base)).status == 503
        only.response.close()

        async def has_room():
            return (await listen(order_id, base=base)).status == 200

        await eventually(has_room, within_seconds=10)


async def test_a_ticket_that_is_polled_says_when_to_ask_again(shop, service):
    sale = await shop.open_sale()
    with service.frozen("worker"):
        placed = await shop.place(sale, "ann", new_key())
        order = await shop.order(placed.body["order_id"], "ann")
        assert (order.body["status"], order.headers["Retry-After"]) == ("queued", "1")
    await shop.until_order(placed.body["order_id"], "ann", "pending")


async def test_a_loser_is_told_how_late_they_were(shop):
    sale = await shop.open_sale(stock=1)
    url = f"{shop.run.public}/v1/sales/{sale}/last-order"
    nothing = await shop.ask("GET", url)
    assert (nothing.status, nothing.body["last_placed_at"]) == (200, None)
    placed = await shop.buy(sale, "ann")
    lost = await shop.place(sale, "bob")
    assert lost.code == "sold_out"

    async def told():
        answer = await shop.ask("GET", url)
        return answer.body if answer.body["last_placed_at"] else None

    late = await eventually(told, within_seconds=10)
    assert late["last_placed_at"] == placed["placed_at"]
    assert late["ago_ms"] >= 0
    assert (await shop.ask("GET", url.replace(sale, "none"))).code == "sale_not_found"
