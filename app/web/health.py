"""
What an orchestrator asks: does it live, is it ready, has it started.

A store that is away never fails readiness: every api process would leave the
balancer at once and shoppers would get nothing, not even the honest 503.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from aiohttp import web

from app.web.access import Access
from app.web.body import respond
from app.web.endpoint import Endpoint

Check: TypeAlias = Callable[[], Awaitable[str]]


class Readiness:
    """Whether this process has started, and whether it is leaving."""

    def __init__(self) -> None:
        self.started = False
        self.draining = False

    @property
    def is_ready(self) -> bool:
        """Started and not leaving."""
        return self.started and not self.draining


def health_endpoints(readiness: Readiness, checks: Mapping[str, Check]) -> list[Endpoint]:
    """
    Make /livez, /readyz and /startupz.

    Args:
        readiness: of this process.
        checks: for `?verbose`: name of a store to a callable that says how it is;
            it must answer within its own deadline and not raise.
    """

    async def livez(request: web.Request) -> web.Response:
        return respond(request, 200, {"status": "alive"})

    async def startupz(request: web.Request) -> web.Response:
        return _tell(request, is_well=readiness.started)

    async def readyz(request: web.Request) -> web.Response:
        listed: dict[str, str] = {}
        if "verbose" in request.query:
            listed = {name: await check() for name, check in checks.items()}
        return _tell(request, is_well=readiness.is_ready, checks=listed)

    return [
        _endpoint("/livez", livez, "Say that the loop turns."),
        _endpoint("/startupz", startupz, "Say whether this process has started."),
        _endpoint("/readyz", readyz, "Say whether this process wants requests."),
    ]


def _tell(
    request: web.Request,
    *,
    is_well: bool,
    checks: Mapping[str, str] | None = None,
) -> web.Response:
    told: dict[str, object] = {"status": "ready" if is_well else "not_ready"}
    if checks:
        told["checks"] = checks
    return respond(request, 200 if is_well else 503, told, {"Cache-Control": "no-store"})


def _endpoint(
    path: str,
    handler: Callable[[web.Request], Awaitable[web.Response]],
    summary: str,
) -> Endpoint:
    return Endpoint(
        method="GET",
        path=path,
        handler=handler,
        summary=summary,
        access=Access.PUBLIC,
        answers={200: None, 503: None},
    )
