"""
Read what a client sent and write what it asked for: JSON, or MessagePack where spoken.

Bodies are decoded straight into msgspec structs that forbid unknown fields, so a
handler sees values of the declared types or is not reached at all.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from app.web.invalid import InvalidRequest, field_invalid
from app.web.keys import SETTINGS, SPEAKS_MSGPACK

T = TypeVar("T")

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"

_ENCODER: Final = msgspec.json.Encoder()
_MSGPACK_ENCODER: Final = msgspec.msgpack.Encoder()
_PLAIN_JSON: Final = frozenset({JSON, "application/json; charset=utf-8"})
_PLACE: Final = re.compile(r"(?P<said>.*) - at (?:`key` in )?`(?P<path>\$.*)`", re.DOTALL)
_NAMED: Final = re.compile(r"Object (?:contains unknown|missing required) field `(?P<name>.*)`")
_MESSAGE_CHARACTERS_MAX: Final = 200


async def read_body(request: web.Request, type_: type[T], limit_bytes: int | None = None) -> T:
    """
    Read the body as `type_`; an absent body reads as `{}`.

    Args:
        request: with Content-Type application/json, or application/msgpack where
            the endpoint speaks it.
        type_: a struct that forbids unknown fields.
        limit_bytes: None takes the listener's `body_bytes_max`.

    Raises:
        InvalidRequest: bad_request, request_timeout, body_too_large,
            unsupported_media_type or validation_failed with the field at fault.
    """
    raw = await read_raw(request, limit_bytes)
    if not raw:
        return _decode(_json_decoder(type_), b"{}")
    if _is_msgpack(request):
        return _decode(_msgpack_decoder(type_), raw)
    return _decode(_json_decoder(type_), raw)


async def read_raw(request: web.Request, limit_bytes: int | None = None) -> bytes:
    """
    Read the body as bytes, such as a signed callback.

    Raises:
        InvalidRequest: request_timeout, body_too_large, bad_request (broken
            chunks) or unsupported_media_type (compressed).
    """
    settings = request.app[SETTINGS]
    limit = settings.body_bytes_max if limit_bytes is None else limit_bytes
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise InvalidRequest(code="unsupported_media_type")
    if (request.content_length or 0) > limit:
        raise InvalidRequest(code="body_too_large", limit_bytes=limit)
    if request.content.is_eof():  # the usual case: it came with the header, no timer needed
        body = request.content.read_nowait()
        if len(body) > limit:
            raise InvalidRequest(code="body_too_large", limit_bytes=limit)
        return body
    try:
        async with asyncio.timeout(settings.body_seconds):
            return await _gather(request, limit)
    except TimeoutError as exc:
        raise InvalidRequest(code="request_timeout") from exc
    except web.RequestPayloadError as exc:
        raise InvalidRequest(code="bad_request") from exc


async def _gather(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > limit:
            raise InvalidRequest(code="body_too_large", limit_bytes=limit)
    return bytes(body)


def _is_msgpack(request: web.Request) -> bool:
    """Tell MessagePack from JSON; refuse everything else."""
    declared = request.headers.get("Content-Type", "").lower()
    if declared in _PLAIN_JSON:
        return False
    media = request.content_type
    if media == MSGPACK and SPEAKS_MSGPACK in request:
        return True
    is_json = media == JSON or (media.startswith("application/") and media.endswith("+json"))
    if not is_json or (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise InvalidRequest(code="unsupported_media_type")
    return False


# One decoder for each struct that routes declare: a handful, made at first use.
_JSON_DECODERS: Final[dict[type[Any], msgspec.json.Decoder[Any]]] = {}
_MSGPACK_DECODERS: Final[dict[type[Any], msgspec.msgpack.Decoder[Any]]] = {}


def _json_decoder(type_: type[T]) -> msgspec.json.Decoder[T]:
    decoder = _JSON_DECODERS.get(type_)
    if decoder is None:
        decoder = _JSON_DECODERS[type_] = msgspec.json.Decoder(type_)
    return decoder


def _msgpack_decoder(type_: type[T]) -> msgspec.msgpack.Decoder[T]:
    decoder = _MSGPACK_DECODERS.get(type_)
    if decoder is None:
        decoder = _MSGPACK_DECODERS[type_] = msgspec.msgpack.Decoder(type_)
    return decoder


def _decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], raw: bytes) -> T:
    try:
        value = decoder.decode(raw)
    except msgspec.ValidationError as exc:
        # msgspec stops at the first field it does not like; what follows may not
        # be JSON at all, and that is the graver mistake.
        _check_well_formed(decoder, raw)
        raise invalid_field(exc) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(code="bad_request") from exc
    # No store of ours can hold U+0000, and no honest client sends it.
    if b"\\u0000" in raw or (b"\x00" in raw and isinstance(decoder, msgspec.msgpack.Decoder)):
        _refuse_nul(msgspec.to_builtins(value), "$")
    return value


def _check_well_formed(
    decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T],
    raw: bytes,
) -> None:
    is_json = isinstance(decoder, msgspec.json.Decoder)
    try:
        if is_json:
            raw.decode()
            msgspec.json.decode(raw)
        else:
            msgspec.msgpack.decode(raw)
    except msgspec.ValidationError:  # such as 1e400: a number, if not one we can hold
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as exc:
        raise InvalidRequest(code="bad_request") from exc


def _refuse_nul(value: object, path: str) -> None:
    if isinstance(value, str) and "\x00" in value:
        raise field_invalid(path=path, message="U+0000 is not allowed")
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_nul(item, f"{path}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_nul(item, f"{path}[{index}]")


def invalid_field(exc: msgspec.ValidationError) -> InvalidRequest:
    """Turn msgspec's sentence into the refusal that names the field."""
    said = str(exc)
    placed = _PLACE.fullmatch(said)
    path = "$" if placed is None else placed["path"]
    message = said if placed is None else placed["said"]
    named = _NAMED.fullmatch(message)
    if named is not None:
        path = f"{path}.{named['name']}"
    return field_invalid(
        path=path[:_MESSAGE_CHARACTERS_MAX],
        message=message[:_MESSAGE_CHARACTERS_MAX],
    )


def respond(
    request: web.Request,
    status: int,
    payload: Any,  # noqa: ANN401  whatever msgspec encodes: struct, dict, list, Raw
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """
    Answer with `payload` as JSON, or as MessagePack where spoken and asked for.

    Args:
        request: its Accept decides the form.
        status: of the success.
        payload: a struct, dict or list; datetimes must be aware.
        headers: more headers, such as Location.
    """
    if SPEAKS_MSGPACK in request and MSGPACK in request.headers.get("Accept", ""):
        body, media = _MSGPACK_ENCODER.encode(payload), MSGPACK
    else:
        body, media = _ENCODER.encode(payload), JSON
    sent = {"Content-Type": media}
    if headers is not None:
        sent.update(headers)
    return web.Response(status=status, body=body, headers=sent)
