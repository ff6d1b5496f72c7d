import pytest

from loadtest.bench.wire import name_answer, whole_length


def a_reply(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


TICKET = b'{"order_id":"0ABC","status":"queued"}'


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        (a_reply("202 Accepted", TICKET), "placed"),
        (a_reply("202 Accepted", TICKET, "Idempotency-Replayed: true"), "replay"),
        (a_reply("202 Accepted", b'{"status":"queued"}'), "unreadable"),
        (a_reply("201 Created", TICKET), "confirmed"),
        (a_reply("409 Conflict", b'{"status":409,"code":"sold_out"}'), "sold_out"),
        (a_reply("503 Service Unavailable", b'{"code":"overloaded","x":1}'), "overloaded"),
        (a_reply("502 Bad Gateway", b"<html>"), "http_502"),
    ],
)
def test_only_a_202_that_names_a_new_order_counts_as_placed(reply, name):
    assert name_answer(reply) == name


def test_an_answer_is_whole_when_its_body_is():
    reply = a_reply("202 Accepted", TICKET)
    head = len(reply) - len(TICKET)
    assert [whole_length(reply[:size]) for size in (0, head - 1, head, len(reply))] == [
        0,
        0,
        len(reply),
        len(reply),
    ]


def test_a_length_in_the_body_is_no_header():
    assert whole_length(b"HTTP/1.1 202 OK\r\n\r\n\r\nContent-Length: 9\r\n") == 40
