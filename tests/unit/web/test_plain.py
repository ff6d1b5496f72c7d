"""What is plain, and what only aiohttp may judge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.plain import HEAD_BYTES_MAX, is_whole, read_plain

HEAD = "POST /v1/sales/s/orders HTTP/1.1\r\nHost: t\r\n"


def test_a_plain_request_is_read_whole():
    raw = (
        f"{HEAD}authorization: Bearer x \r\nUSER-AGENT: me\r\nConnection: Keep-Alive\r\n"
        "Content-Length: 2\r\n\r\n{}"
    ).encode()
    request = read_plain(raw)
    assert request is not None
    assert request.method == "POST"
    assert request.path == "/v1/sales/s/orders"
    assert request.headers["authorization"] == "Bearer x "
    assert request.body == b"{}"


NOT_PLAIN = {
    "an unfinished head": f"{HEAD}\r",
    "no Host": "POST / HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "an older version": "POST / HTTP/1.0\r\nHost: t\r\n\r\n",
    "a newer version": "POST / HTTP/2.0\r\nHost: t\r\n\r\n",
    "no version": "POST /\r\nHost: t\r\n\r\n",
    "a body shorter than said": f"{HEAD}Content-Length: 3\r\n\r\n{{}}",
    "a body longer than said": f"{HEAD}Content-Length: 1\r\n\r\n{{}}",
    "a body without a length": f"{HEAD}\r\n{{}}",
    "two requests": f"{HEAD}\r\n{HEAD}\r\n",
    "a length with a sign": f"{HEAD}Content-Length: +2\r\n\r\n{{}}",
    "a length with a leading zero": f"{HEAD}Content-Length: 02\r\n\r\n{{}}",
    "two lengths": f"{HEAD}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}",
    "a length with two values": f"{HEAD}Content-Length: 2, 2\r\n\r\n{{}}",
    "chunks": f"{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length and chunks": f"{HEAD}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}",
    "an expectation": f"{HEAD}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{{}}",
    "an upgrade": f"{HEAD}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "a connection to be closed": f"{HEAD}Connection: close\r\n\r\n",
    "a cookie": f"{HEAD}Cookie: a=b\r\n\r\n",
    "two preferences": f"{HEAD}Prefer: wait=5\r\nPrefer: wait=1\r\n\r\n",
    "a field nobody named": f"{HEAD}X-Odd: 1\r\n\r\n",
    "two tokens": f"{HEAD}Authorization: a\r\nAuthorization: b\r\n\r\n",
    "a folded line": f"{HEAD}Accept: a\r\n b\r\n\r\n",
    "a space before the colon": f"{HEAD}Accept : a\r\n\r\n",
    "no space behind the colon": f"{HEAD}Accept:a\r\n\r\n",
    "a field without a name": f"{HEAD}: a\r\n\r\n",
    "a line without a colon": f"{HEAD}Accept\r\n\r\n",
    "a tab": f"{HEAD}Accept: a\tb\r\n\r\n",
    "a bare carriage return": f"{HEAD}Accept: a\rb\r\n\r\n",
    "a bare line feed": f"{HEAD}Accept: a\nTransfer-Encoding: chunked\r\n\r\n",
    "a NUL": f"{HEAD}Accept: a\0b\r\n\r\n",
    "a letter beyond ASCII": f"{HEAD}Referer: ä\r\n\r\n",
    "a body beyond ASCII": f'{HEAD}Content-Length: 4\r\n\r\n"ä"',
    "a space in the path": "POST /a b HTTP/1.1\r\nHost: t\r\n\r\n",
    "a line end first": f"\r\n{HEAD}\r\n",
    "a head too long": f"{HEAD}Referer: {'a' * HEAD_BYTES_MAX}\r\n\r\n",
}


@pytest.mark.parametrize("text", NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_everything_else_is_left_to_aiohttp(text):
    assert read_plain(text.encode()) is None


@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader(raw):
    read_plain(raw)
    is_whole(raw)


@given(st.integers(0, 120), st.binary(min_size=1, max_size=3))
def test_a_mutated_request_is_plain_only_if_it_still_fills_the_read(at, bytes_):
    whole = f"{HEAD}Content-Type: application/json\r\nContent-Length: 14\r\n\r\n".encode()
    whole += b'{"quantity":1}'
    mutated = whole[:at] + bytes_ + whole[at + len(bytes_) :]
    request = read_plain(mutated)
    if request is not None:
        assert mutated.endswith(b"\r\n\r\n" + request.body)
        assert request.headers.get("content-length", "0") == str(len(request.body))
        assert is_whole(mutated) or request.method not in {"GET", "POST"}


WHOLE = {
    "no body": "GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    "a body": "PUT / HTTP/1.1\r\nHost: t\r\ncontent-LENGTH:  2\r\n\r\n{}",
    "to be closed": "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
}
NOT_SURELY_WHOLE = {
    "two": "GET / HTTP/1.1\r\nHost: t\r\n\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n",
    "one and a beginning": "GET / HTTP/1.1\r\nHost: t\r\n\r\nG",
    "half a body": "PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n{}",
    "chunks": "PUT / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an upgrade": "GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\n\r\n",
    "an expectation": "PUT / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n\r\n",
    "two lengths": "PUT / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "an odd length": "PUT / HTTP/1.1\r\nContent-Length: 0x0\r\n\r\n",
    "a folded length": "PUT / HTTP/1.1\r\nContent-Length:\r\n 0\r\n\r\n",
    "a tunnel": "CONNECT t:1 HTTP/1.1\r\nHost: t\r\n\r\n",
    "a half head": "GET / HTTP/1.1\r\nHost: t\r\n",
    "nothing": "",
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_request_is_known_as_one(text):
    assert is_whole(text.encode())


@pytest.mark.parametrize("text", NOT_SURELY_WHOLE.values(), ids=NOT_SURELY_WHOLE.keys())
def test_what_is_not_surely_whole_is_not_taken_for_it(text):
    assert not is_whole(text.encode())
