"""
A route, declared once: what is mounted, guarded and documented are the same lines.

Every stage's `routes.py` returns a list of these; `mount` adds them to an
application and `openapi` writes them down.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from aiohttp import web

from app.web.access import Access, Authenticator, is_allowed
from app.web.catalogue import PROBLEMS
from app.web.keys import OPERATOR, SHOPPER, SPEAKS_MSGPACK
from app.web.problem import problem

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """
    One route.

    Args:
        method: GET, POST, PUT or DELETE; GET serves HEAD too.
        path: with `{name}` for the parts that vary.
        handler: called after the access was checked.
        summary: one line for the document.
        access: whom it serves; SHOPPER fills request[SHOPPER], VIEWER, OPERATOR
            and MERCHANT fill request[OPERATOR].
        answers: every success: its status and the struct of its body (None: not JSON).
        body: struct of the JSON body; must forbid unknown fields.
        query: struct of the query string; must forbid unknown fields.
        refusals: codes of this route; those of its access, body and key are added.
        idempotent_key: the handler reads the Idempotency-Key.
        prefer_wait: the handler reads `Prefer: wait`.
        speaks_msgpack: bodies and answers may be MessagePack when asked.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access
    answers: Mapping[int, type | None]
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    refusals: tuple[str, ...] = ()
    idempotent_key: bool = False
    prefer_wait: bool = False
    speaks_msgpack: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.refusals) - PROBLEMS.keys()
        assert not unknown, f"{self.path}: not in the catalogue: {unknown}"
        for struct in (self.body, self.query):
            assert struct is None or struct.__struct_config__.forbid_unknown_fields, struct


def mount(
    app: web.Application,
    endpoints: Iterable[Endpoint],
    authenticator: Authenticator,
) -> None:
    """Add routes to an application, each behind the guard of its access."""
    for endpoint in endpoints:
        guarded = _guard(endpoint, authenticator)
        if endpoint.method == "GET":
            app.router.add_get(endpoint.path, guarded)
        else:
            app.router.add_route(endpoint.method, endpoint.path, guarded)


def _guard(endpoint: Endpoint, authenticator: Authenticator) -> Handler:
    handler = _with_msgpack(endpoint.handler) if endpoint.speaks_msgpack else endpoint.handler
    match endpoint.access:
        case Access.PUBLIC | Access.PROVIDER:
            return handler
        case Access.SHOPPER:
            return _for_shopper(handler, authenticator)
        case Access.VIEWER | Access.OPERATOR | Access.MERCHANT:
            return _for_operator(handler, authenticator, endpoint.access)


def _with_msgpack(handler: Handler) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        request[SPEAKS_MSGPACK] = True
        return await handler(request)

    return answer


def _for_shopper(handler: Handler, authenticator: Authenticator) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        shopper = authenticator.shopper(request.headers)
        if shopper is None:
            return problem("unauthorized", request)
        request[SHOPPER] = shopper
        return await handler(request)

    return answer


def _for_operator(handler: Handler, authenticator: Authenticator, access: Access) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        operator = authenticator.operator(request.headers)
        if operator is None:
            return problem("unauthorized", request)
        if not is_allowed(access, operator, request.method):
            return problem("forbidden", request)
        request[OPERATOR] = operator
        return await handler(request)

    return answer
