"""
Every field of every body and query, given everything it must not be.

What the document's schema refuses must be refused by the code that the interface
names, with the field at fault, and nothing may be written. What the schema lets
through may be answered in any documented way, but never by a fault or a trace.
"""

import asyncio
import json
import re
from urllib.parse import quote

import msgspec
import pytest

from app.web.query import encode_cursor
from tests.contract import lives
from tests.contract.documented import Route, routes
from tests.contract.door import KEY, check
from tests.contract.lives import BANK_LINE, good_body
from tests.journeys.shop import new_key, visit

FIELD_VALUES = (
    None, True, 0, -1, 1, 1.5, 2**31, 2**63, 10**30, -(10**30), 1e300,
    "", " ", "x", "a" * 41, "a" * 65, "a" * 257, "1", "-1", "NaN", "\x00", "\x07bell", "😀",
    "\u202eabc", "a\nb", "../../etc", "'; DROP TABLE orders; --", "{{7*7}}", "%s%n",
    "2026-11-22", "2026-11-22T10:00:00", "2026-13-45T10:00:00Z", "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    [], {}, [1], ["x"], {"a": 1}, [[[[]]]],
)  # fmt: skip
QUERY_VALUES = (
    "", "0", "-1", "1", "101", "1.5", "1e2", "NaN", "null", "true", "x", "[]", "{}", "9" * 30,
    "a" * 600, "\x00", "\x07", "😀", "\u202e", "'; --", "../..", "+1", " 1", "\u0966",
)  # fmt: skip
BODIES = {
    # what is sent instead of an object         its code, or () for whatever the fields say
    b"null": ("validation_failed",),
    b"[]": ("validation_failed",),
    b"[{}]": ("validation_failed",),
    b'"text"': ("validation_failed",),
    b"1": ("validation_failed",),
    b"true": ("validation_failed",),
    b'{"stranger": 1}': ("validation_failed",),
    b"{": ("bad_request",),
    b"{]": ("bad_request",),
    b"nonsense": ("bad_request",),
    b"{}{}": ("bad_request",),
    b'{"a": NaN}': ("bad_request",),
    b'{"a": Infinity}': ("bad_request",),
    b"{'a': 1}": ("bad_request",),
    b'{"a": 1,}': ("bad_request",),
    b'{"a": "\xff\xfe"}': ("bad_request",),
    b"\xff\xfe{\x00}\x00": ("bad_request",),
    b"\xef\xbb\xbf{}": ("bad_request",),
    b"\x00" * 16: ("bad_request",),
    b"\x1f\x8b\x08\x00": ("bad_request",),
    b'{"a": "\\ud800"}': ("bad_request", "validation_failed"),
    b"[" * 2_000 + b"]" * 2_000: ("bad_request", "validation_failed"),
    b'{"a":' * 800 + b"1" + b"}" * 800: ("body_too_large", "bad_request", "validation_failed"),
    b" " * 5_000: ("body_too_large", "bad_request"),  # a bank statement may be longer
    b'{"a": "' + b"x" * 1_000_000 + b'"}': ("body_too_large",),
}
MEDIA = (
    "text/plain", "text/html", "application/xml", "multipart/form-data; boundary=x", "garbage",
    "application/x-www-form-urlencoded", "application/json; charset=latin-1", "application/",
)  # fmt: skip
KEYS = {
    "": "idempotency_key_invalid",
    "short": "idempotency_key_invalid",
    "a" * 15: "idempotency_key_invalid",
    "a" * 65: "idempotency_key_invalid",
    "a" * 15 + " ": "idempotency_key_invalid",
    "a b c d e f g h i j k": "idempotency_key_invalid",
    '"' + "a" * 16: "idempotency_key_invalid",
    '""' + "a" * 16: "idempotency_key_invalid",
    "ключ-ключ-ключ-ключ": "idempotency_key_invalid",
    "😀" * 16: "idempotency_key_invalid",
    "a" * 16 + "!": "idempotency_key_invalid",
    "a" * 16 + "," + "b" * 16: "idempotency_key_invalid",
}
THINGS = (
    "a" * 41, "a" * 300, "%00", "a%00b", "%ff", "%c3%28", "%ed%a0%80", "%F0%9F%98%80", "%2e%2e",
    "%2e%2e%2f%2e%2e", "a%2fb", "%0d%0aX-Evil:1", "%20", "0" * 26, "Z" * 26, "z" * 26,
    "0" * 25, "0" * 27, "I" * 26, "%27;--", "%E2%80%AE", "%25", "%2525", "1e9",
)  # fmt: skip
CURSORS = (
    "", "x", "AA", "====", "a" * 600, "_-_-", "%FF",
    *(
        msgspec.msgpack.encode(position)
        for position in (
            None, 0, -1, 2**31, 2**62, 2**63, 2**64 - 1, 1.5, "x", "\x00", "a" * 200, [], {},
            [0], [0, 0], [-1, -1], [2**63, 2**63], [0, 2**63], [True, None],
            ["2026-11-22T10:00:00Z", 1, 0, 1, 1], ["2026-11-22T10:00:00", 1, 0, 1, 1],
            ["0001-01-01T00:00:00+23:59", 1, 0, 1, 1], ["9999-12-31T23:59:59-23:59", 1, 0, 1, 1],
            ["2026-11-22T10:00:00Z", 2**40, 0, 1, 1], ["2026-11-22T10:00:00Z", 1, -1, 1, 1],
            ["2026-11-22T10:00:00Z", 1, 0, 1, 2**63], [[[[]]]],
        )
    ),
)  # fmt: skip
WITH_BODY = [route for route in routes() if route.body is not None]
WITH_QUERY = [route for route in routes() if route.parameters("query")]
KEYED = [route for route in routes() if route.wants_key]
BY_PATH = [route for route in routes() if route.parameters("path")]


async def make_things(shop):
    """Make a sale and an order, so that only the fault stands in the way."""
    sale = await shop.open_sale(limit_per_shopper=999, stock=9_000)
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    await shop.until_flushed(sale)
    return {
        "{sale}": sale,
        "{order}": order_id,
        "{code}": "none",
        "{refund}": "none",
        "{block}": "none",
        "{payment}": "none",
        "{line}": "none",
        "{balance}": "none",
        "{provider}": "sandbox",
        "{number}": "1",
    }


@pytest.fixture(scope="module")
def things(service):
    """What tests that write nothing can share."""

    async def make():
        async with visit(service.run) as shop:
            return await make_things(shop)

    return asyncio.run(make())


@pytest.fixture
async def own_things(shop):
    """What a test may write to."""
    return await make_things(shop)


def place_of(route: Route, things: dict[str, str]) -> str:
    """Write a route's path with things that are there."""
    path = route.path
    for name, thing in things.items():
        path = path.replace(name, thing)
    return path.replace("{account}", "none")


def fields_at_fault(reply):
    return [fault["path"] for fault in reply.body["errors"]]


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
async def test_a_field_that_the_schema_refuses_is_named_and_nothing_is_written(door, things, route):
    wrong = []
    token = door.token_for(route)
    path = place_of(route, things)
    async with door.nothing_is_written():
        for field, schema in route.body["properties"].items():
            for value in FIELD_VALUES:
                if not list(route.faults(schema, value)):
                    continue
                raw = json.dumps({**good_body(route), field: value}).encode()
                reply = await door.knock(route, path, token=token, raw=raw, key=new_key())
                wrong += check(route, reply, f"{field}={value!r}")
                if (reply.status, reply.code) != (422, "validation_failed"):
                    wrong.append(f"{route} {field}={value!r}: {reply.status} {reply.code}")
                elif not any(at.startswith(f"$.{field}") for at in fields_at_fault(reply)):
                    wrong.append(f"{route} {field}={value!r}: at {fields_at_fault(reply)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
async def test_a_field_that_the_schema_takes_is_answered_as_documented(
    door, shop, own_things, route
):
    wrong = []
    token = door.token_for(route)
    if "{refund}" in route.path:
        own_things["{refund}"] = await lives.ask_refund(shop, own_things["{order}"])
    path = place_of(route, own_things)
    for field, schema in route.body["properties"].items():
        for value in FIELD_VALUES:
            if list(route.faults(schema, value)):
                continue
            raw = json.dumps({**good_body(route), field: value}).encode()
            reply = await door.knock(route, path, token=token, raw=raw, key=new_key())
            wrong += check(route, reply, f"{field}={value!r}")
    await lives.rest(shop, route)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
async def test_a_field_that_is_missing_is_named(door, things, route):
    path, token = place_of(route, things), door.token_for(route)
    async with door.nothing_is_written():
        for field in route.body.get("required", []):
            body = good_body(route)
            del body[field]
            reply = await door.knock(route, path, token=token, raw=json.dumps(body).encode())
            assert (reply.status, reply.code) == (422, "validation_failed")
            assert fields_at_fault(reply) == [f"$.{field}"]


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
async def test_what_is_no_object_of_ours_is_refused_by_its_code(door, things, route):
    wrong = []
    path, token = place_of(route, things), door.token_for(route)
    async with door.nothing_is_written():
        for raw, codes in BODIES.items():
            reply = await door.knock(route, path, token=token, raw=raw, key=new_key())
            wrong += check(route, reply, raw[:40])
            if reply.code not in codes:
                wrong.append(f"{route} {raw[:40]!r}: {reply.status} {reply.code or 'taken'}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
async def test_another_media_type_is_415(door, things, route):
    path, token = place_of(route, things), door.token_for(route)
    raw = json.dumps(good_body(route)).encode() or b"{}"
    async with door.nothing_is_written():
        for media in MEDIA:
            reply = await door.knock(
                route, path, token=token, raw=raw, headers=[("Content-Type", media)]
            )
            assert (reply.status, reply.code) == (415, "unsupported_media_type"), media
        reply = await door.knock(
            route, path, token=token, raw=raw, headers=[("Content-Encoding", "gzip")]
        )
        assert (reply.status, reply.code) in {
            (415, "unsupported_media_type"),
            (400, "bad_request"),
        }


@pytest.mark.parametrize("route", KEYED, ids=str)
async def test_an_idempotency_key_is_wanted_and_looked_at(door, things, route):
    path, token = place_of(route, things), door.token_for(route)
    raw = json.dumps(good_body(route)).encode()
    async with door.nothing_is_written():
        reply = await door.knock(route, path, token=token, raw=raw, key=None)
        assert (reply.status, reply.code) == (400, "idempotency_key_missing")
        for key, code in KEYS.items():
            reply = await door.knock(route, path, token=token, raw=raw, key=key)
            assert (reply.status, reply.code) == (400, code), key
            assert not check(route, reply, key)
        two = [("Idempotency-Key", KEY), ("Idempotency-Key", KEY[::-1])]
        reply = await door.knock(route, path, token=token, raw=raw, key=None, headers=two)
        assert (reply.status, reply.code) == (400, "idempotency_key_invalid")


@pytest.mark.parametrize("route", KEYED, ids=str)
async def test_a_key_with_other_content_is_a_mismatch_and_writes_nothing(
    door, shop, own_things, route
):
    path, token, key = place_of(route, own_things), door.token_for(route), new_key()
    other = {
        "PlaceOrder": {"quantity": 2},
        "CreateSale": {"stock": 6},
        "Restock": {"units": 2},
        "AskRefund": {"amount_minor": 2},
        "TopUp": {"amount_minor": 2},
        "ImportLines": {"lines": [{**BANK_LINE, "amount_minor": 2}]},
        "StartPayment": {"return_url": "https://shop.example/back"},
        "OpenAfterSale": {"reason": "damaged"},
        "WriteNote": {"text": "another"},
    }[
        route.operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[
            -1
        ]
    ]
    await lives.live(shop, route, own_things["{order}"])
    await lives.rest(shop, route)
    first = await door.knock(
        route, path, token=token, raw=json.dumps(good_body(route)).encode(), key=key
    )
    assert first.status in {200, 201, 202}, first
    await lives.rest(shop, route)
    await shop.until_units_rest(own_things["{sale}"])
    async with door.nothing_is_written():
        raw = json.dumps({**good_body(route), **other}).encode()
        reply = await door.knock(route, path, token=token, raw=raw, key=key)
        assert (reply.status, reply.code) == (422, "idempotency_mismatch")
        assert not check(route, reply, other)
        again = await door.knock(
            route, path, token=token, raw=json.dumps(good_body(route)).encode(), key=key
        )
        assert again.status in {200, 201, 202}
        assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("route", WITH_QUERY, ids=str)
async def test_every_parameter_is_read_strictly(door, things, route):
    wrong = []
    path, token = place_of(route, things), door.token_for(route)
    for name, schema in route.parameters("query").items():
        for text in QUERY_VALUES:
            reply = await door.knock(route, f"{path}?{name}={quote(text)}", token=token)
            wrong += check(route, reply, f"{name}={text!r}")
            typed = _as_number(text) if schema.get("type") == "integer" else text
            if list(route.faults(schema, typed)) and reply.code != "validation_failed":
                wrong.append(f"{route} {name}={text!r}: {reply.status} {reply.code or 'taken'}")
        twice = await door.knock(route, f"{path}?{name}=1&{name}=1", token=token)
        assert (twice.status, twice.code) == (422, "validation_failed"), name
    for strange in ("stranger=1", "limit[]=1", "%FF=1", "=", "%00=%00"):
        reply = await door.knock(route, f"{path}?{strange}", token=token)
        assert (reply.status, reply.code) == (422, "validation_failed"), strange
    assert not wrong, "\n".join(wrong)


def _as_number(text):
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else text


@pytest.mark.parametrize(
    "route", [one for one in WITH_QUERY if "cursor" in one.parameters("query")], ids=str
)
async def test_a_cursor_from_somewhere_else_is_refused_or_harmless(door, things, route):
    wrong = []
    path, token = place_of(route, things), door.token_for(route)
    for cursor in CURSORS:
        text = cursor
        if isinstance(cursor, bytes):
            text = encode_cursor(msgspec.msgpack.decode(cursor))
        reply = await door.knock(route, f"{path}?cursor={text}", token=token)
        wrong += check(route, reply, f"cursor={cursor!r}")
        if reply.status not in {200, 404, 422}:
            wrong.append(f"{route} cursor={cursor!r}: {reply.status}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("route", BY_PATH, ids=str)
async def test_a_thing_that_cannot_be_is_not_found(door, route):
    wrong = []
    raw = json.dumps(good_body(route)).encode() if route.body else None
    async with door.nothing_is_written():
        for thing in THINGS:
            reply = await door.knock(route, route.at(thing), token=door.token_for(route), raw=raw)
            told = (reply.status, reply.code)
            if told[0] != 404 or not told[1].endswith("not_found"):
                wrong.append(f"{route} {thing}: {told}")
            wrong += [
                fault for fault in check(route, reply, thing) if "not_found is not" not in fault
            ]
        reply = await door.knock(route, route.at("a" * 8_000), token=door.token_for(route), raw=raw)
        assert reply.status in {404, 431}
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("route", routes(), ids=str)
async def test_another_method_is_405_with_what_is_allowed(door, route):
    served = {one.method for one in routes() if one.at("x") == route.at("x")}
    for method in {"PUT", "PATCH", "DELETE", "TRACE"} - served:
        reply = await door.knock(route, method=method)
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert route.method in reply.headers["Allow"].split(", ")
