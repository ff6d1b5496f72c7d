"""
Read query strings as strictly as bodies, and page through lists by opaque cursors.

A cursor says after which row to go on. Clients only hand it back, so its shape
may change with any release; a cursor that was tampered with is a refused field,
never a query.
"""

import binascii
import re
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
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)


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
    given: dict[str, str | int] = {}
    numbers = _numbers_of(type_)
    for name, value in request.query.items():
        if not (name.isprintable() and value.isprintable()):
            raise field_invalid(path="$", message="not printable text")
        if name in given:
            raise field_invalid(path=f"$.{name}", message="given twice")
        is_number = name in numbers and _WHOLE.fullmatch(value) is not None
        given[name] = int(value) if is_number else value
    try:
        return msgspec.convert(given, type=type_)
    except msgspec.ValidationError as exc:
        raise invalid_field(exc) from exc


# Which parameters of each query are numbers; a handful of queries, looked at once.
_NUMBERS: Final[dict[type[Any], frozenset[str]]] = {}


def _numbers_of(type_: type[Any]) -> frozenset[str]:
    """
    Name the parameters that are numbers: everything else stays the text it is.

    msgspec's own lax reading takes 1e2 for 100, and makes nothing of a sale
    that is called `null`.
    """
    known = _NUMBERS.get(type_)
    if known is None:
        struct = msgspec.inspect.type_info(type_)
        assert isinstance(struct, msgspec.inspect.StructType), type_
        known = _NUMBERS[type_] = frozenset(
            field.encode_name
            for field in struct.fields
            if isinstance(field.type, msgspec.inspect.IntType)
        )
    return known


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
