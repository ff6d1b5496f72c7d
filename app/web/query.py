"""
Read query strings as strictly as bodies, and page through lists by opaque cursors.

A cursor says after which row to go on. Clients only hand it back, so its shape
may change with any release; a cursor that was tampered with is a refused field,
never a query.
"""

import binascii
from base64 import urlsafe_b64encode
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web

from app.web.body import invalid_field
from app.web.invalid import field_invalid

T = TypeVar("T")

LIMIT_MAX: Final = 100
LIMIT_DEFAULT: Final = 20
CURSOR_CHARACTERS_MAX: Final = 512

_ENCODER: Final = msgspec.msgpack.Encoder()


class Page(msgspec.Struct, forbid_unknown_fields=True):
    """Where a list goes on and how many it holds; lists with filters extend it."""

    cursor: Annotated[str, msgspec.Meta(max_length=CURSOR_CHARACTERS_MAX)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT


def read_query(request: web.Request, type_: type[T]) -> T:
    """
    Read the query string as `type_`, numbers included.

    Args:
        request: each name at most once.
        type_: a struct that forbids unknown fields, such as `Page`.

    Raises:
        InvalidRequest: validation_failed with the parameter at fault.
    """
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if not (name.isprintable() and value.isprintable()):
            raise field_invalid(path="$", message="not printable text")
        if name in given:
            raise field_invalid(path=f"$.{name}", message="given twice")
        given[name] = value
    try:
        return msgspec.convert(given, type=type_, strict=False)
    except msgspec.ValidationError as exc:
        raise invalid_field(exc) from exc


def encode_cursor(position: Any) -> str:  # noqa: ANN401  a tuple or struct of plain values
    """Make the cursor that `decode_cursor` reads back; what it holds should be short."""
    return urlsafe_b64encode(_ENCODER.encode(position)).rstrip(b"=").decode()


def decode_cursor(cursor: str, type_: type[T]) -> T:
    """
    Read a cursor back.

    Args:
        cursor: from `encode_cursor`, through a client's hands.
        type_: what was encoded, such as `tuple[int, int]`.

    Raises:
        InvalidRequest: validation_failed at `$.cursor`.
    """
    try:
        padded = cursor.translate({0x2D: "+", 0x5F: "/"}) + "=" * (-len(cursor) % 4)
        raw = binascii.a2b_base64(padded, strict_mode=True)
        return msgspec.msgpack.decode(raw, type=type_)
    except (ValueError, msgspec.DecodeError, RecursionError) as exc:
        raise field_invalid(path="$.cursor", message="not a cursor of this list") from exc
