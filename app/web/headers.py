"""Request headers with a meaning of their own: read once, strictly, here."""

import re
from functools import lru_cache
from typing import Final

from aiohttp import web

from app.web.catalogue import Language
from app.web.invalid import InvalidRequest

WAIT_SECONDS_MAX: Final = 5

_KEY: Final = re.compile(r"[0-9A-Za-z_-]{16,64}", re.ASCII)
_QUALITY: Final = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.ASCII)
_WAIT: Final = re.compile(r"wait\s*=\s*\"?(\d{1,9})\"?", re.ASCII | re.IGNORECASE)


def idempotency_key(request: web.Request) -> str:
    """
    Read the Idempotency-Key, bare or as a quoted string.

    Returns:
        16..64 characters of [0-9A-Za-z_-]; a UUID is one of these.

    Raises:
        InvalidRequest: idempotency_key_missing or idempotency_key_invalid.

    Source:
        draft-ietf-httpapi-idempotency-key-header.
    """
    given = request.headers.getall("Idempotency-Key", ())
    if not given:
        raise InvalidRequest(code="idempotency_key_missing")
    key = read_idempotency_key(given[0])
    # Two headers could name two keys: refuse rather than choose.
    if len(given) > 1 or key is None:
        raise InvalidRequest(code="idempotency_key_invalid")
    return key


def read_idempotency_key(value: str) -> str | None:
    """Read one value of Idempotency-Key; None when it is no key."""
    if _KEY.fullmatch(value) is not None:
        return value
    key = value.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    return key if _KEY.fullmatch(key) is not None else None


def wait_seconds(request: web.Request) -> int:
    """
    Read how long the client is willing to wait: `Prefer: wait=N`.

    The first wait counts, whichever of several headers holds it; preferences
    that are unknown or malformed are ignored, as the RFC demands.

    Returns:
        0..WAIT_SECONDS_MAX; 0 when nothing was asked.

    Source:
        RFC 7240, sections 2 and 4.3.
    """
    for header in request.headers.getall("Prefer", ()):
        seconds = read_wait(header)
        if seconds is not None:
            return seconds
    return 0


@lru_cache(maxsize=256)
def read_wait(value: str) -> int | None:
    """Read one value of Prefer; None when it asks for no wait."""
    for preference in value.split(","):
        asked = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if asked is not None:
            return min(int(asked[1]), WAIT_SECONDS_MAX)
    return None


def language(request: web.BaseRequest) -> Language:
    """Choose the language of titles and details by Accept-Language."""
    return negotiate(request.headers.get("Accept-Language"))


def negotiate(accepted: str | None) -> Language:
    """Choose the language by the value of Accept-Language, English when there is none."""
    return Language.ENGLISH if accepted is None else _negotiate(accepted[:256])


@lru_cache(maxsize=256)
def _negotiate(accepted: str) -> Language:
    best, best_quality = Language.ENGLISH, 0.0
    for part in accepted.split(","):
        tag, _, parameter = part.partition(";")
        spoken = _spoken(tag.strip().lower())
        quality = _quality(parameter.strip().lower())
        if spoken is not None and quality > best_quality:
            best, best_quality = spoken, quality
    return best


def _spoken(tag: str) -> Language | None:
    """Map zh, zh-CN, zh-Hans, … to the one Chinese catalogue before negotiating."""
    primary = tag.partition("-")[0]
    if primary == "zh":
        return Language.CHINESE
    return Language.ENGLISH if primary in {"en", "*"} else None


def _quality(parameter: str) -> float:
    if not parameter:
        return 1.0
    given = _QUALITY.fullmatch(parameter)
    return 0.0 if given is None else float(given[1])
