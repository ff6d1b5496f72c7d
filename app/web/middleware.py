"""
The boundary of every request: a name for it, an answer in any case, a count.

This is the one place of the api that catches every exception. A refusal is
counted and not logged; a fault is logged once, with its trace, and answered
without it.
"""

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from app.kernel.errors import DoorbusterError
from app.telemetry.requests import RequestTally
from app.web.catalogue import PROBLEMS
from app.web.connection import Connection
from app.web.fast_lane import CLIENT_LEFT
from app.web.invalid import InvalidRequest
from app.web.keys import NOW_MS, REQUEST_ID
from app.web.problem import SERVER, problem
from app.web.request_id import name_request

UNKNOWN_ROUTE: Final = "none"

_log = structlog.get_logger(__name__)
_CODE_OF_STATUS: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    431: "header_too_large",
}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


def boundary(tally: RequestTally) -> Middleware:
    """Make the middleware that answers every request in some way."""

    @web.middleware
    async def answer(
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        started = time.perf_counter()
        connection = request.protocol
        if isinstance(connection, Connection):
            connection.request_started()
        request[REQUEST_ID] = name_request(request)
        try:
            if request.transport is None or request.transport.is_closing():
                # Nobody is there any more to hear the answer. Under overload most of
                # what waits is of this kind, and serving it starves who still waits.
                response: web.StreamResponse = web.Response(status=CLIENT_LEFT)
            else:
                response = await _answer(request, handler)
            if isinstance(connection, Connection) and connection.is_leaving:
                response.force_close()
            tally.count(
                _route(request),
                request.method if request.method in _METHODS else "other",
                response.status,
                time.perf_counter() - started,
            )
            # Sent here and not by aiohttp afterwards, so that whoever watches the
            # connection knows when nothing is owed on it any more.
            await response.prepare(request)
            await response.write_eof()
        finally:
            if isinstance(connection, Connection):
                connection.request_finished()
        return response

    return answer


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers of every reply on it, streams included: the signal before sending."""
    headers = response.headers
    headers["X-Request-Id"] = request.get(REQUEST_ID) or name_request(request)
    headers["Server"] = SERVER
    headers.setdefault("X-Content-Type-Options", "nosniff")
    now_ms = request.app.get(NOW_MS)
    if now_ms is not None:
        headers["Server-Now-Ms"] = str(now_ms())


async def _answer(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    try:
        # Control characters and bytes that are not UTF-8 name nothing of ours,
        # and no store could even be asked for them.
        if not request.path.isprintable():
            return problem("not_found", request)
        return await handler(request)
    except InvalidRequest as exc:
        fields: dict[str, Any] = exc.fields
        return problem(exc.code, request, **fields)
    except web.HTTPException as exc:
        return _translate(exc, request)
    except DoorbusterError as exc:
        return _refuse(exc, request)
    except Exception:  # noqa: BLE001  the boundary: whatever breaks, the client gets an answer
        return _fail(request)


def _translate(exc: web.HTTPException, request: web.Request) -> web.Response:
    """Say in our words what aiohttp's router says in its own."""
    if exc.status < HTTPStatus.BAD_REQUEST:  # a redirection is an answer
        raise exc
    otherwise = "bad_request" if exc.status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error"
    code = _CODE_OF_STATUS.get(exc.status, otherwise)
    if isinstance(exc, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exc.allowed_methods))
        return problem(code, request, headers={"Allow": allowed})
    return problem(code, request)


def _refuse(exc: DoorbusterError, request: web.Request) -> web.Response:
    if exc.code not in PROBLEMS or exc.code == "internal_error":
        return _fail(request)
    if request.writer.output_size > 0:
        raise exc
    return problem(exc.code, request, retryable=exc.retryable)


def _fail(request: web.Request) -> web.Response:
    """Log the exception being handled and answer 500, if an answer can still be sent."""
    if request.transport is None:  # the client left; there is nobody to tell
        raise  # noqa: PLE0704  called from an except clause
    _log.exception(
        "request_failed",
        request_id=request[REQUEST_ID],
        method=request.method,
        route=_route(request),
    )
    if request.writer.output_size > 0:
        raise  # noqa: PLE0704  the same; aiohttp cuts the half-sent reply
    return problem("internal_error", request)


def _route(request: web.Request) -> str:
    """Name the route by its pattern, so that metrics have no ids in their labels."""
    resource = request.match_info.route.resource
    return UNKNOWN_ROUTE if resource is None else resource.canonical
