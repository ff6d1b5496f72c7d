"""
Build the answer to a refused request: `application/problem+json`.

A refusal that is an expected answer (sold out, not open) is a value, so stages
call `problem` and return what it builds; nothing is raised on the way.

Source:
    RFC 9457; docs/INTERFACES.md §3.
"""

import random
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from app.web.catalogue import PROBLEMS, Language
from app.web.headers import language
from app.web.keys import REQUEST_ID

SERVER: Final = "doorbuster"  # the Server header: a name, no versions
TYPE_PREFIX: Final = "urn:doorbuster:problem:"

_ENCODER: Final = msgspec.json.Encoder()
_UNFINISHED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
_WAIT_STEP_MS: Final = 50
_CHALLENGE: Final = 'Bearer realm="doorbuster"'


def problem(  # noqa: PLR0913  each keyword is a member of the document
    code: str,
    request: web.BaseRequest,
    *,
    detail: str | None = None,
    retryable: bool | None = None,
    retry_after_ms: int | None = None,
    headers: Mapping[str, str] | None = None,
    **fields: object,
) -> web.Response:
    """
    Build the refusal `code` for this request.

    Args:
        code: a code of the catalogue; an unknown one is a bug (KeyError).
        request: names the instance, the request id and the language.
        detail: a sentence for this case, instead of the catalogue's.
        retryable: overrides the catalogue, as for `sold_out` that may return.
        retry_after_ms: exact wait; overrides the catalogue's random one.
        headers: more headers, such as Allow.
        fields: members of the case, such as `remaining=1`.
    """
    parts = problem_parts(
        code,
        spoken=language(request),
        instance=request.rel_url.raw_path,
        request_id=request.get(REQUEST_ID, ""),
        detail=detail,
        retryable=retryable,
        retry_after_ms=retry_after_ms,
        **fields,
    )
    sent = parts.headers if headers is None else {**parts.headers, **headers}
    response = web.Response(status=parts.status, body=parts.body, headers=sent)
    if parts.status in _UNFINISHED:
        response.force_close()
    return response


class ProblemParts(NamedTuple):
    """A refusal, ready to be sent by whichever way the request came."""

    status: int
    headers: dict[str, str]
    body: bytes


def problem_parts(  # noqa: PLR0913  each keyword is a member of the document
    code: str,
    *,
    spoken: Language,
    instance: str,
    request_id: str,
    detail: str | None = None,
    retryable: bool | None = None,
    retry_after_ms: int | None = None,
    **fields: object,
) -> ProblemParts:
    """
    Write the refusal `code`; the arguments are those of `problem`.

    Args:
        code: a code of the catalogue.
        spoken: the language of title and detail.
        instance: the path that was asked for.
        request_id: the request's name.
        detail: instead of the catalogue's.
        retryable: overrides the catalogue.
        retry_after_ms: exact wait.
        fields: members of the case.
    """
    kind = PROBLEMS[code]
    document: dict[str, object] = {
        "type": TYPE_PREFIX + code,
        "title": kind.title.in_language(spoken),
        "status": kind.status,
        "detail": kind.detail.in_language(spoken) if detail is None else detail,
        "instance": instance,
        "code": code,
        "request_id": request_id,
        "retryable": kind.retryable if retryable is None else retryable,
    }
    sent = {
        "Content-Type": "application/problem+json",
        "Content-Language": spoken.value,
        "Cache-Control": "no-store",
    }
    wait_ms = draw_wait_ms(code) if retry_after_ms is None else max(0, retry_after_ms)
    if wait_ms is not None:
        document["retry_after_ms"] = wait_ms
        sent["Retry-After"] = str(-(-wait_ms // 1000))
    document.update(fields)
    if kind.status == HTTPStatus.UNAUTHORIZED:  # RFC 9110, 15.5.2: a 401 names its challenge
        sent["WWW-Authenticate"] = _CHALLENGE
    return ProblemParts(kind.status, sent, _ENCODER.encode(document))


def draw_wait_ms(code: str) -> int | None:
    """
    Draw how long a refused client should wait, ms; None where waiting is no remedy.

    At random, because clients that were refused together come back together; in steps,
    so that a reply can be kept for the next who draws the same.
    """
    wait = PROBLEMS[code].wait
    if wait is None:
        return None
    steps = (wait.max_ms - wait.min_ms) // _WAIT_STEP_MS + 1
    return wait.min_ms + _WAIT_STEP_MS * int(random.random() * steps)  # noqa: S311  jitter
