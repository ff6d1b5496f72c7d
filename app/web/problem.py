"""
Build the answer to a refused request: `application/problem+json`.

A refusal that is an expected answer (sold out, not open) is a value, so stages
call `problem` and return what it builds; nothing is raised on the way.

Source:
    RFC 9457; docs/INTERFACES.md §3.
"""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from app.web.catalogue import PROBLEMS, ProblemKind
from app.web.headers import language
from app.web.keys import REQUEST_ID

SERVER: Final = "doorbuster"  # the Server header: a name, no versions
TYPE_PREFIX: Final = "urn:doorbuster:problem:"

_ENCODER: Final = msgspec.json.Encoder()
_UNFINISHED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
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
    kind = PROBLEMS[code]
    spoken = language(request)
    document: dict[str, object] = {
        "type": TYPE_PREFIX + code,
        "title": kind.title.in_language(spoken),
        "status": kind.status,
        "detail": kind.detail.in_language(spoken) if detail is None else detail,
        "instance": request.rel_url.raw_path,
        "code": code,
        "request_id": request.get(REQUEST_ID, ""),
        "retryable": kind.retryable if retryable is None else retryable,
    }
    sent = {
        "Content-Type": "application/problem+json",
        "Content-Language": spoken.value,
        "Cache-Control": "no-store",
    }
    wait_ms = _wait_ms(kind) if retry_after_ms is None else max(0, retry_after_ms)
    if wait_ms is not None:
        document["retry_after_ms"] = wait_ms
        sent["Retry-After"] = str(-(-wait_ms // 1000))
    document.update(fields)
    if kind.status == HTTPStatus.UNAUTHORIZED:  # RFC 9110, 15.5.2: a 401 names its challenge
        sent["WWW-Authenticate"] = _CHALLENGE
    if headers is not None:
        sent.update(headers)
    response = web.Response(status=kind.status, body=_ENCODER.encode(document), headers=sent)
    if kind.status in _UNFINISHED:
        response.force_close()
    return response


def _wait_ms(kind: ProblemKind) -> int | None:
    if kind.wait is None:
        return None
    return kind.wait.min_ms + secrets.randbelow(kind.wait.max_ms - kind.wait.min_ms + 1)
