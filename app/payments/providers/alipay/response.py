r"""
Take the signed part out of an answer of Alipay's gateway, byte for byte; pure.

The signature covers the *text* of one member of the answer's object, so it is
cut out of the bytes as they came and never written anew. The scanner knows
strings: a brace, a quote or the member's own name inside a string is text.

    {"alipay_trade_query_response":{…},"alipay_cert_sn":"…","sign":"…"}

Only what was verified is read: if the gateway escaped its slashes after signing
(`\/` for `/`, as the official SDKs allow for), the text without the escapes is
the one that is checked and the one that is read.

Source:
    docs/PAYMENTS.md §2.2.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.kernel.errors import BadSignature
from app.payments.provider import MalformedMessage
from app.payments.providers.alipay.signing import is_signed_by

ERROR_MEMBER: Final = "error_response"

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"', re.DOTALL)
_LITERAL: Final = re.compile(rb"[-+.0-9A-Za-z]+")
# Strings first, so that what they hold is passed over; a quote alone opens one that never ends.
_MARK: Final = re.compile(_STRING.pattern + rb'|["{}\[\]]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Envelope:
    """An answer in its parts; nothing of it is verified yet."""

    content: bytes = field(repr=False)  # of the member, braces included, as received
    signature: str | None = field(repr=False)
    certificate_serial: str | None


def read_envelope(raw: bytes, method: str) -> Envelope:
    """
    Cut an answer to `method` (`alipay.trade.query`) into its parts.

    Raises:
        MalformedMessage: it is no such answer.
    """
    members = scan_members(raw)
    content = members.get(f"{method.replace('.', '_')}_response") or members.get(ERROR_MEMBER)
    if content is None or not content.startswith(b"{"):
        raise MalformedMessage(why="no answer to what was asked")
    return Envelope(
        content=content,
        signature=_text(members.get("sign")),
        certificate_serial=_text(members.get("alipay_cert_sn")),
    )


def verified_content(envelope: Envelope, keys: Collection[RSAPublicKey]) -> bytes:
    """
    Return the text that Alipay signed.

    Raises:
        BadSignature: there is no signature, or it is not Alipay's.
    """
    if envelope.signature is None:
        raise BadSignature(why="unsigned")
    received = envelope.content
    for text in dict.fromkeys((received, received.replace(rb"\/", b"/"))):
        if is_signed_by(keys, text, envelope.signature):
            return text
    raise BadSignature(why="not signed by a key that we know")


def scan_members(raw: bytes) -> dict[str, bytes]:
    """
    Return the members of a JSON object: decoded names, values exactly as received.

    One pass, no recursion. Values are cut out, not checked: whoever reads one
    decodes it.

    Raises:
        MalformedMessage: it is no object, or a name is there twice.
    """
    position = _expect(raw, _skip_space(raw, 0), b"{")
    members: dict[str, bytes] = {}
    position = _skip_space(raw, position)
    if raw[position : position + 1] == b"}":
        _expect_end(raw, position + 1)
        return members
    while True:
        start = _skip_space(raw, position)
        position = _end_of(_STRING, raw, start)
        name = _text(raw[start:position])
        start = _skip_space(raw, _expect(raw, _skip_space(raw, position), b":"))
        position = _end_of_value(raw, start)
        if name is None or name in members:
            raise MalformedMessage(why="a name is there twice, or is none")
        members[name] = raw[start:position]
        position = _skip_space(raw, position)
        if raw[position : position + 1] == b"}":
            _expect_end(raw, position + 1)
            return members
        position = _expect(raw, position, b",")


def _end_of_value(raw: bytes, start: int) -> int:
    first = raw[start : start + 1]
    if first == b'"':
        return _end_of(_STRING, raw, start)
    if first not in (b"{", b"["):
        return _end_of(_LITERAL, raw, start)
    depth = 0
    for mark in _MARK.finditer(raw, start):
        match mark[0]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
                if depth == 0:
                    return mark.end()
            case b'"':
                break
    raise MalformedMessage(why="a value does not end")


def _end_of(pattern: re.Pattern[bytes], raw: bytes, start: int) -> int:
    match = pattern.match(raw, start)
    if match is None:
        raise MalformedMessage(why=f"no value at byte {start}")
    return match.end()


def _skip_space(raw: bytes, position: int) -> int:
    match = _SPACE.match(raw, position)
    assert match is not None, "the pattern matches nothing, too"
    return match.end()


def _expect(raw: bytes, position: int, mark: bytes) -> int:
    if raw[position : position + 1] != mark:
        raise MalformedMessage(why=f"no {mark.decode()} at byte {position}")
    return position + 1


def _expect_end(raw: bytes, position: int) -> None:
    if _skip_space(raw, position) != len(raw):
        raise MalformedMessage(why="something follows the object")


def _text(value: bytes | None) -> str | None:
    """Decode a JSON string; None when there is none, or it is something else."""
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
