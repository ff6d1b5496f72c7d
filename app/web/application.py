"""Put an aiohttp application together from endpoints."""

from collections.abc import Callable, Iterable

from aiohttp import web

from app.telemetry.requests import RequestTally
from app.web.access import Authenticator
from app.web.endpoint import Endpoint, mount
from app.web.keys import NOW_MS, SETTINGS
from app.web.middleware import boundary, stamp
from app.web.settings import WebSettings


def build_application(
    endpoints: Iterable[Endpoint],
    *,
    settings: WebSettings,
    authenticator: Authenticator,
    tally: RequestTally,
    now_ms: Callable[[], int] | None = None,
) -> web.Application:
    """
    Build an application that serves `endpoints` inside the boundary.

    Args:
        endpoints: of all stages, of this listener.
        settings: limits and deadlines of bodies.
        authenticator: decides who sent a request.
        tally: counts requests.
        now_ms: Redis's time in Unix ms; every reply then carries Server-Now-Ms.
    """
    app = web.Application(middlewares=[boundary(tally)])
    app[SETTINGS] = settings
    if now_ms is not None:
        app[NOW_MS] = now_ms
    app.on_response_prepare.append(stamp)
    mount(app, endpoints, authenticator)
    return app
