"""Bodies, queries, cursors and headers: whatever comes, a value or a refusal."""

import asyncio
from typing import Annotated

import msgspec
import pytest
from aiohttp import streams, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from app.web.body import read_body
from app.web.headers import idempotency_key, wait_seconds
from app.web.invalid import InvalidRequest
from app.web.keys import SETTINGS, SPEAKS_MSGPACK
from app.web.query import Page, decode_cursor, encode_cursor, read_query
from app.web.settings import WebSettings


class Address(msgspec.Struct, forbid_unknown_fields=True):
    city: Annotated[str, msgspec.Meta(max_length=5)]


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    group: str | None = None
    ship_to: list[Address] = []


async def asked(body: bytes, media: str = "application/json", *, speaks: bool = False):
    """A request whose body has arrived."""
    app = web.Application()
    app[SETTINGS] = WebSettings()
    loop = asyncio.get_running_loop()
    content = streams.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    content.feed_data(body)
    content.feed_eof()
    headers = {"Content-Type": media}
    request = make_mocked_request("POST", "/", headers, payload=content, app=app)
    if speaks:
        request[SPEAKS_MSGPACK] = True
    return request


async def refusal(body: bytes, media: str = "application/json", *, speaks: bool = False):
    with pytest.raises(InvalidRequest) as told:
        await read_body(await asked(body, media, speaks=speaks), Wish)
    return told.value


FIELDS = [
    (b'{"quantity": "1"}', "$.quantity"),
    (b'{"quantity": 0}', "$.quantity"),
    (b'{"quantity": -1}', "$.quantity"),
    (b'{"quantity": 1001}', "$.quantity"),
    (b'{"quantity": 1.5}', "$.quantity"),
    (b'{"quantity": true}', "$.quantity"),
    (b'{"quantity": null}', "$.quantity"),
    (b'{"quantity": ' + b"9" * 400 + b"}", "$.quantity"),
    (b'{"quantity": 1e400}', "$.quantity"),
    (b"{}", "$.quantity"),
    (b"", "$.quantity"),
    (b'{"quantity": 1, "price": 1}', "$.price"),
    (b'{"quantity": 1, "group": 7}', "$.group"),
    (b'{"quantity": 1, "group": "a\\u0000b"}', "$.group"),
    (b'{"quantity": 1, "ship_to": [{"city": "longer"}]}', "$.ship_to[...].city"),
    (b'{"quantity": 1, "ship_to": [{}]}', "$.ship_to[0].city"),
    (b"[]", "$"),
    (b"null", "$"),
]


@pytest.mark.parametrize(("body", "path"), FIELDS)
async def test_a_wrong_field_is_named(body, path):
    told = await refusal(body)
    (error,) = told.fields["errors"]
    assert told.code == "validation_failed"
    assert error["path"] in {path, path.replace("[...]", "[0]")}
    assert error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"quantity=1",
        b'{"quantity": NaN}',
        b'{"quantity": Infinity}',
        b'{"quantity": 01}',
        b'{"quantity": 1} {}',
        b'{"group": "\xff"}',
        b'{"unknown": "\xff"}',
        b'{"group": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b'{"unknown": ' + b"[" * 4000,
        b"[" * 2000 + b"]" * 2000,
        b"\x00",
    ],
)
async def test_what_is_not_json_in_utf_8_is_a_bad_request(body):
    assert (await refusal(body)).code == "bad_request"


@pytest.mark.parametrize(
    "media",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=gbk",
        "application/msgpack",
        "garbage",
        ";;;",
        "",
    ],
)
async def test_another_media_type_is_refused(media):
    assert (await refusal(b'{"quantity": 1}', media)).code == "unsupported_media_type"


@pytest.mark.parametrize(
    "media",
    ["application/json", "Application/JSON;charset=UTF-8", "application/vnd.x+json"],
)
async def test_json_is_read_under_its_names(media):
    wish = await read_body(await asked(b'{"quantity": 2}', media), Wish)
    assert wish == Wish(quantity=2)


async def test_a_body_over_the_limit_is_refused():
    assert (await refusal(b" " * 4097)).code == "body_too_large"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\xc1", "bad_request"),
        (b"\x81\xa8quantity", "bad_request"),
        (b"\x91" * 3000, "bad_request"),
        (b"\x81\xa5group\xa1\xff", "bad_request"),
        (b"\x81\x01\x01", "validation_failed"),
        (b"\x80", "validation_failed"),
        (b"\x82\xa8quantity\x01\xa5group\xa1\x00", "validation_failed"),
    ],
)
async def test_broken_msgpack_is_refused(body, code):
    assert (await refusal(body, "application/msgpack", speaks=True)).code == code


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.binary(max_size=200), st.booleans())
@example(b'{"\\ud800": 1}', False)  # noqa: FBT003  hypothesis takes them by place
async def test_noise_is_a_value_or_a_refusal(body, speaks):
    media = "application/msgpack" if speaks else "application/json"
    try:
        await read_body(await asked(body, media, speaks=speaks), Wish)
    except InvalidRequest as exc:
        assert exc.code in {"bad_request", "validation_failed"}  # noqa: PT017  a value is fine too


@given(anything, st.booleans())
async def test_any_document_is_a_value_or_a_refusal(value, speaks):
    media = "application/msgpack" if speaks else "application/json"
    encode = msgspec.msgpack.encode if speaks else msgspec.json.encode
    try:
        body = encode({"quantity": value})
    except (OverflowError, UnicodeEncodeError):
        return
    try:
        wish = await read_body(await asked(body, media, speaks=speaks), Wish, 10**6)
    except InvalidRequest as exc:
        assert exc.code in {"bad_request", "validation_failed"}  # noqa: PT017  a value is fine too
    else:
        assert wish.quantity == value


class Listing(Page, forbid_unknown_fields=True):
    state: str | None = None


def query(text: str) -> Listing:
    return read_query(make_mocked_request("GET", f"/?{text}"), Listing)


def test_a_query_is_read_with_defaults_and_numbers():
    assert query("") == Listing(cursor=None, limit=20, state=None)
    assert query("limit=100&state=open&cursor=abc") == Listing("abc", 100, "open")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("limit=0", "$.limit"),
        ("limit=101", "$.limit"),
        ("limit=x", "$.limit"),
        ("limit=", "$.limit"),
        ("limit=1.5", "$.limit"),
        ("limit=" + "9" * 400, "$.limit"),
        ("limit=1&limit=2", "$.limit"),
        ("page=1", "$.page"),
        ("state=%00", "$"),
        ("cursor=" + "a" * 513, "$.cursor"),
    ],
)
def test_a_wrong_parameter_is_named(text, path):
    with pytest.raises(InvalidRequest) as told:
        query(text)
    assert told.value.code == "validation_failed"
    assert told.value.fields["errors"][0]["path"] == path


@given(
    st.tuples(st.integers(0, 2**62), st.text(max_size=40, alphabet=st.characters(codec="utf-8")))
)
def test_a_cursor_reads_back(position):
    assert decode_cursor(encode_cursor(position), tuple[int, str]) == position


@given(st.text(max_size=60))
@example("é")
@example("A")
@example("=" * 4)
def test_a_strange_cursor_is_a_refused_field(text):
    with pytest.raises(InvalidRequest) as told:
        decode_cursor(text, tuple[int, int, int, int, int, int])
    assert told.value.fields["errors"][0]["path"] == "$.cursor"


KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("given_key", "read"),
    [
        (KEY, KEY),
        (f'"{KEY}"', KEY),
        (f"  {KEY} ", KEY),
        ("9f0e8b0a-3c35-4e9c-9a33-0d0a4a2b1c1d", "9f0e8b0a-3c35-4e9c-9a33-0d0a4a2b1c1d"),
        ("k" * 64, "k" * 64),
    ],
)
def test_a_key_is_read_bare_or_quoted(given_key, read):
    request = make_mocked_request("POST", "/", {"Idempotency-Key": given_key})
    assert idempotency_key(request) == read


@pytest.mark.parametrize(
    "given_key",
    ["", '""', '"', "short", "k" * 65, KEY + " x", KEY + ";a=1", f'"{KEY}', KEY + "é"],
)
def test_a_malformed_key_is_refused(given_key):
    request = make_mocked_request("POST", "/", {"Idempotency-Key": given_key})
    with pytest.raises(InvalidRequest) as told:
        idempotency_key(request)
    assert told.value.code == "idempotency_key_invalid"


def test_a_missing_key_and_two_keys_are_refused():
    with pytest.raises(InvalidRequest) as missing:
        idempotency_key(make_mocked_request("POST", "/"))
    assert missing.value.code == "idempotency_key_missing"
    both = [("Idempotency-Key", KEY), ("Idempotency-Key", KEY)]
    with pytest.raises(InvalidRequest) as twice:
        idempotency_key(make_mocked_request("POST", "/", both))
    assert twice.value.code == "idempotency_key_invalid"


@pytest.mark.parametrize(
    ("preferences", "seconds"),
    [
        ([], 0),
        (["wait=3"], 3),
        (["wait=99"], 5),
        (["WAIT = 2"], 2),
        (['wait="4"'], 4),
        (["respond-async, wait=2; x=y"], 2),
        (["return=minimal", "wait=1"], 1),
        (["wait=1", "wait=4"], 1),
        (["wait=-1"], 0),
        (["wait=x, wait=2"], 2),
        (["wait", "wait=1.5"], 0),
        (["wait=" + "9" * 30], 0),
        ([",,;=,"], 0),
    ],
)
def test_the_first_readable_wait_counts(preferences, seconds):
    headers = [("Prefer", one) for one in preferences]
    assert wait_seconds(make_mocked_request("POST", "/", headers)) == seconds
