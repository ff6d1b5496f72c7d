"""
The form-encoded messages that Alipay and UnionPay post, and the text their signatures cover; pure.

Both sign `name=value&name=value` over decoded values. That text can be read in
two ways when a value itself holds `&name=`: whoever carries a message could fold
a field into its neighbour, or unfold one, under the same signature. So a message
whose values hold the name of a field that we read is refused, and one whose names
hold `&` or `=`.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes, urlencode

from app.payments.provider import MalformedMessage

FIELDS_MAX: Final = 200
CUT: Final = "[cut]"

_ENCODED: Final = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*", re.ASCII | re.DOTALL)


def read_form(raw: bytes) -> dict[str, str]:
    """
    Decode a form once: percent signs and plus signs, then UTF-8.

    Raises:
        MalformedMessage: it is no form, a name is there twice, or holds another field.
    """
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedMessage(why="a form is ASCII") from error
    pairs = text.split("&")
    if len(pairs) > FIELDS_MAX:
        raise MalformedMessage(why=f"more than {FIELDS_MAX} fields")
    fields: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise MalformedMessage(why="a field without name or value")
        decoded = _decode(name)
        if decoded in fields:
            raise MalformedMessage(why="a name is there twice")
        if "&" in decoded or "=" in decoded:
            raise MalformedMessage(why="a field is hidden in another one's name")
        fields[decoded] = _decode(value)
    return fields


def refuse_folded(fields: Mapping[str, str], names: Collection[str]) -> None:
    """
    Refuse a message that can be read in two ways under one signature.

    Args:
        fields: as decoded.
        names: of the fields that we read.

    Raises:
        MalformedMessage: a value holds `&name=` of one of them.
    """
    for value in fields.values():
        if "&" in value and any(f"&{name}=" in value for name in names):
            raise MalformedMessage(why="a field is hidden in another one's value")


def without_persons(fields: Mapping[str, str], kept: Collection[str]) -> bytes:
    """
    Write a verified message as it may be kept: every name, and only the values that are named.

    What a provider adds tomorrow may be about a person, so what is not known is cut. The
    signature stays: whoever brings the missing values can still prove what was signed.

    Args:
        fields: as decoded and verified.
        kept: names of the fields that say nothing of a person.
    """
    return urlencode(
        {name: value if name in kept else CUT for name, value in fields.items()}
    ).encode()


def joined(fields: Mapping[str, str]) -> str:
    """Write the text that a signature covers: sorted by name, decoded, joined by `&`."""
    return "&".join(f"{name}={value}" for name, value in sorted(fields.items()))


def _decode(text: str) -> str:
    if _ENCODED.fullmatch(text) is None:
        raise MalformedMessage(why="a broken percent escape")
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedMessage(why="a value is no UTF-8") from error
