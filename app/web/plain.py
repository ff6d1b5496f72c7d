"""
Plain requests: what well-behaved clients send, read without a general parser. Pure.

A request is plain when it lies whole in one read of the socket, is HTTP/1.1, is framed
by at most one Content-Length, and carries only header fields from a short list, each
once and in printable ASCII. Anything else is not judged here: aiohttp reads it, and
answers it. So this reader may be strict where a server must be lenient, and it can
never see a boundary between two requests where aiohttp would see another: whatever
could blur one (Transfer-Encoding, Upgrade, Expect, a folded line, a second length,
bytes behind the body) is not on the list.

Source:
    RFC 9112, sections 3, 5 and 6; docs/decisions/0026-fast-lane.md.
"""

import re
from typing import Final, NamedTuple

HEAD_BYTES_MAX: Final = 8_190  # of one plain head; longer ones are aiohttp's to refuse

# Those whose value is wanted.
_WANTED: Final = frozenset(
    {
        "accept",
        "accept-language",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "prefer",
        "x-request-id",
    }
)
# Those that change nothing here. What is not named is not ignored: it is not plain.
_INDIFFERENT: Final = frozenset(
    {
        "accept-encoding",
        "cache-control",
        "dnt",
        "forwarded",
        "origin",
        "pragma",
        "priority",
        "referer",
        "sec-ch-ua",
        "sec-ch-ua-mobile",
        "sec-ch-ua-platform",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
    }
)
# The usual spellings, so that nearly every name is one look-up and no new string.
_SPELLED: Final = {
    spelled: name
    for name in _WANTED | _INDIFFERENT
    for spelled in (name, name.title(), name.title().replace("Dnt", "DNT"))
}
_PRINTABLE: Final = bytes(range(0x20, 0x7F))
_LINE_END: Final = "\r\n"
_KEEP_ALIVE: Final = "keep-alive"
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d{1,10}) *\r\n")
_BLURS: Final = (b"\r\ntransfer-encoding", b"\r\nupgrade", b"\r\nexpect", b"\r\n ", b"\r\n\t")
_BODILESS: Final = (b"GET ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"POST ", b"PUT ", b"PATCH ")


class PlainRequest(NamedTuple):
    """One whole request."""

    method: str
    path: str  # as sent: nothing decoded, query included
    headers: dict[str, str]  # by name in lower case
    body: bytes


def read_plain(data: bytes) -> PlainRequest | None:
    """
    Read one plain request that fills `data`; None for everything else.

    One pass with little to do per field, because it is made for every click: a folded line
    or one with a space before its colon has a name that nobody named, and a field given
    twice leaves fewer names than lines.
    """
    end = data.find(_END_OF_HEAD, 0, HEAD_BYTES_MAX)
    if end < 0 or not data.isascii():
        return None
    head = data[:end]
    lines = head.decode().split(_LINE_END)
    # What stays when all that is printable is taken away: a tab, a bare CR or LF, a NUL.
    if head.translate(None, _PRINTABLE) != b"\r\n" * (len(lines) - 1):
        return None
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(": ")
        known = _SPELLED.get(name) or _SPELLED.get(name.lower())
        if known is None or not colon:
            return None
        headers[known] = value
    if len(headers) != len(lines) - 1 or "host" not in headers:
        return None
    method, _, rest = lines[0].partition(" ")
    path, _, version = rest.partition(" ")
    body = data[end + len(_END_OF_HEAD) :]
    is_plain = (
        version == "HTTP/1.1"
        # Compared as text: 07, +7 and " 7" are somebody else's to judge.
        and headers.get("content-length", "0") == str(len(body))
        and headers.get("connection", _KEEP_ALIVE).lower() == _KEEP_ALIVE
    )
    return PlainRequest(method, path, headers, body) if is_plain else None


def is_whole(data: bytes) -> bool:
    """
    Say whether `data` is surely one whole request, whoever is to answer it.

    After such a request the next byte begins the next one, as any parser must agree.
    False means no more than that this is not certain.
    """
    end = data.find(_END_OF_HEAD)
    if end < 0 or not data.startswith(_BODILESS):
        return False
    head = data[: end + 2].lower()
    if any(word in head for word in _BLURS):
        return False
    lengths = _LENGTH.findall(head)
    if len(lengths) != head.count(b"\r\ncontent-length") or len(lengths) > 1:
        return False
    return len(data) == end + 4 + (int(lengths[0]) if lengths else 0)
