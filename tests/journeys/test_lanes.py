"""A click by the fast lane and the same click by the slow one hear the same."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from redis.asyncio import Redis

from tests.journeys.shop import Shop, new_key
from tests.waiting import eventually

SLOW: Final = "X-Odd: makes a request not plain"
OWN: Final = {"x-request-id", "date", "server-now-ms", "location", "content-length"}
JSON: Final = "Content-Type: application/json"


class Heard(NamedTuple):
    """One reply, and by which lane it came."""

    fast: bool
    status: int
    headers: dict[str, str]
    body: Any


class Line:
    """A raw connection to the shop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def click(
        self,
        sale: str,
        token: str,
        *fields: str,
        key: str | None = "",
        body: str = "",
        insist: bool = True,
    ) -> Heard:
        lines = [f"POST /v1/sales/{sale}/orders HTTP/1.1", "Host: shop"]
        lines += [f"Authorization: Bearer {token}", *fields]
        if key is not None:
            lines.append(f"Idempotency-Key: {key or new_key()}")
        if body:
            lines.append(f"Content-Length: {len(body.encode())}")
        while True:  # a crowded machine may be overloaded for a moment
            self._writer.write("\r\n".join([*lines, "", body]).encode())
            async with asyncio.timeout(10):
                heard = await self._hear()
            if heard.status != 503 or not insist:
                return heard

    async def _hear(self) -> Heard:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in rest)
        raw = await self._reader.readexactly(int(headers["content-length"]))
        # Only the lane writes the request's name first.
        return Heard(rest[0].startswith("X-Request-Id"), int(first.split()[1]), headers, raw)


@contextlib.asynccontextmanager
async def line_to(shop: Shop) -> AsyncIterator[Line]:
    url = urlsplit(shop.run.public)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def newest_state(shop: Shop) -> AsyncIterator[tuple[Redis, str]]:
    """Reach for the state of the newest sale, past the service."""
    async with Redis.from_url(shop.run.redis, decode_responses=True) as redis:
        states = await redis.keys("*:state")
        yield redis, max(states, key=lambda name: int(re.search(r"{(\d+)", name)[1]))


def told(heard: Heard, *, moments: bool = False) -> tuple[int, dict[str, str], Any]:
    """Leave out what is each reply's own."""
    headers = {name: value for name, value in heard.headers.items() if name not in OWN}
    if (
        "application/json" not in headers["content-type"]
        and "problem" not in headers["content-type"]
    ):
        return heard.status, headers, heard.body
    body = json.loads(heard.body)
    for name in ("request_id", "order_id", *(() if moments else ("placed_at", "pay_by"))):
        body.pop(name, None)
    if "retry-after" in headers:
        headers["retry-after"] = "some"
        body["retry_after_ms"] = "some"
    return heard.status, headers, body


async def hear_both(shop: Shop, line: Line, sale: str, *fields: str, **click: Any) -> Heard:
    """Click as two shoppers, one by each lane; both must hear the same."""
    fast = await line.click(sale, shop.token(new_key()), *fields, **click)
    slow = await line.click(sale, shop.token(new_key()), SLOW, *fields, **click)
    assert not slow.fast
    assert told(fast) == told(slow)
    assert set(fast.headers) == set(slow.headers)
    return fast


async def test_tickets_are_the_same(shop):
    sale = await shop.open_sale(stock=100, limit_per_shopper=5)
    async with line_to(shop) as line:
        await line.click(sale, shop.token("first"))  # this process knows the sale from now on
        for click in (
            {},
            {"body": "{}"},
            {"body": '{"quantity":3}'},
            {"body": ' {"quantity" : 2, "reference": "a~b"} '},
            {"body": '{"reference": null}'},
        ):
            heard = await hear_both(shop, line, sale, JSON, **click)
            assert heard.fast, click
            assert heard.status == 202
            order_id = json.loads(heard.body)["order_id"]
            assert re.fullmatch("[0-9A-Z]{26}", order_id)
            assert heard.headers["location"] == f"/v1/orders/{order_id}".lower()


async def test_replays_are_the_same_by_either_lane(shop):
    sale = await shop.open_sale(stock=5)
    async with line_to(shop) as line:
        token, key = shop.token("ann"), new_key()
        first = await line.click(sale, token, key=key)
        fast = await line.click(sale, token, key=f'"{key}"')
        slow = await line.click(sale, token, SLOW, key=key)
        assert (fast.fast, slow.fast) == (True, False)
        assert told(fast, moments=True) == told(slow, moments=True)
        assert json.loads(first.body) == json.loads(fast.body) == json.loads(slow.body)
        assert fast.headers["idempotency-replayed"] == "true"
        other = await line.click(sale, token, JSON, key=key, body='{"quantity":2}')
        again = await line.click(sale, token, SLOW, JSON, key=key, body='{"quantity":2}')
        assert (other.fast, other.status) == (True, 422)
        assert told(other) == told(again)


async def test_who_waits_gets_the_same_row_by_either_lane(shop):
    sale = await shop.open_sale(stock=100, limit_per_shopper=5)
    async with line_to(shop) as line:
        await line.click(sale, shop.token("first"))
        for wish, click in (
            ("wait=5", {}),
            ("respond-async, wait=5", {"body": '{"quantity":3}'}),
            ("wait=5; lazy", {"body": '{"reference": "a~b"}'}),
        ):
            heard = await hear_both(shop, line, sale, JSON, f"Prefer: {wish}", **click)
            assert (heard.fast, heard.status) == (True, 201), wish
            assert json.loads(heard.body)["status"] == "pending"
        heard = await hear_both(shop, line, sale, "Prefer: return=minimal")
        assert (heard.fast, heard.status) == (True, 202)


async def test_a_replay_that_waits_gets_the_same_row_by_either_lane(shop):
    sale = await shop.open_sale(stock=5)
    async with line_to(shop) as line:
        token, key = shop.token("ann"), new_key()
        await line.click(sale, token, key=key)
        fast = await line.click(sale, token, "Prefer: wait=5", key=key)
        slow = await line.click(sale, token, SLOW, "Prefer: wait=5", key=key)
        assert (fast.fast, slow.fast, fast.status) == (True, False, 201)
        assert told(fast, moments=True) == told(slow, moments=True)
        assert fast.headers["location"] == slow.headers["location"]
        assert fast.headers["idempotency-replayed"] == "true"


async def test_who_waits_in_vain_gets_the_same_ticket_by_either_lane(shop, service):
    sale = await shop.open_sale(stock=5)
    async with line_to(shop) as line:
        await line.click(sale, shop.token("first"))
        with service.frozen("worker"):
            heard = await hear_both(shop, line, sale, "Prefer: wait=1")
        assert (heard.fast, heard.status) == (True, 202)
        assert json.loads(heard.body)["status"] == "queued"


async def test_who_waits_and_leaves_holds_up_nobody(shop, service):
    sale = await shop.open_sale(stock=5)
    async with line_to(shop) as line:
        await line.click(sale, shop.token("first"))
        with service.frozen("worker"):
            for _ in range(3):
                async with line_to(shop) as other:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await other.click(sale, shop.token(new_key()), "Prefer: wait=5")
        heard = await line.click(sale, shop.token(new_key()), "Prefer: wait=5")
        assert (heard.fast, heard.status) == (True, 201)
    await shop.until_stock(sale, reserved=5)


async def test_refusals_are_the_same(shop):
    sold_out = await shop.open_sale(stock=1)
    some_left = await shop.open_sale(stock=1, limit_per_shopper=5)
    paused = await shop.open_sale(stock=1)
    async with line_to(shop) as line:
        for sale in (sold_out, some_left, paused):
            await line.click(sale, shop.token("nobody"), JSON, body='{"quantity":1000}')
        await line.click(sold_out, shop.token("ann"))
        await shop.operate("POST", f"/sales/{paused}/pause", {"reason": "look"})
        cases = {
            (sold_out, ""): "sold_out",
            (some_left, '{"quantity":2}'): "sold_out",
            (some_left, '{"quantity":6}'): "limit_reached",
            (paused, ""): "sale_paused",
        }
        for (sale, body), code in cases.items():
            for language in ("en", "zh-CN,en;q=0.3"):
                said = f"Accept-Language: {language}"

                async def hears(said=said, sale=sale, body=body, code=code) -> bool:
                    heard = await hear_both(shop, line, sale, JSON, said, body=body)
                    # A lease that lapsed for a moment sends a click by the slow lane.
                    return (heard.fast, json.loads(heard.body)["code"]) == (True, code)

                await eventually(hears)


async def test_a_full_backlog_is_told_by_either_lane_and_before_any_token_is_read(shop):
    sale = await shop.open_sale(stock=9)
    async with line_to(shop) as line, newest_state(shop) as (redis, state):
        await line.click(sale, shop.token("first"))
        usual = await redis.hget(state, "backlog_max")
        await redis.hset(state, "backlog_max", 0)

        async def is_told() -> bool:
            slow = await line.click(sale, shop.token("ann"), SLOW, insist=False)
            fast = await line.click(sale, "a token of nobody", insist=False)
            if fast.status == 401:  # what the slow click has heard was said too long ago
                return False
            assert (slow.fast, fast.fast) == (False, True)
            assert told(slow) == told(fast)
            assert json.loads(fast.body)["code"] == "backlog_full"
            return True

        await eventually(is_told)
        await redis.hset(state, "backlog_max", usual)
        assert (await line.click(sale, shop.token("ann"))).status == 202
        assert (await line.click(sale, "a token of nobody")).status == 401


async def test_what_the_lane_leaves_is_refused_as_ever(shop):
    sale = await shop.open_sale(stock=9)
    async with line_to(shop) as line:
        await line.click(sale, shop.token("first"))
        cases: dict[str, dict[str, Any]] = {
            "validation_failed": {"body": '{"quantity":0}'},
            "bad_request": {"body": "{"},
            "idempotency_key_missing": {"key": None},
            "idempotency_key_invalid": {"key": "short"},
        }
        for code, click in cases.items():
            heard = await hear_both(shop, line, sale, JSON, **click)
            assert (heard.fast, json.loads(heard.body)["code"]) == (False, code)
        assert (await line.click(sale, "nobody")).status == 401
        assert (await line.click("no-such-sale", shop.token("ann"))).status == 404
        text = await line.click(sale, shop.token("ann"), "Content-Type: text/plain", body="{}")
        assert text.status == 415
        packed = await line.click(sale, shop.token("ann"), "Accept: application/msgpack")
        assert packed.headers["content-type"] == "application/msgpack"
        assert (await line.click(sale, shop.token("bob"))).fast
