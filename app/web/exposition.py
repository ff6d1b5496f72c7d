"""Serve this process's metrics to Prometheus."""

from aiohttp import web

from app.telemetry.metrics import Metrics
from app.web.access import Access
from app.web.endpoint import Endpoint


def metrics_endpoint(metrics: Metrics) -> Endpoint:
    """Make GET /metrics of this process."""

    async def expose(request: web.Request) -> web.Response:
        body, content_type = metrics.expose(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return Endpoint(
        method="GET",
        path="/metrics",
        handler=expose,
        summary="Tell this process's metrics.",
        access=Access.PUBLIC,
        answers={200: None},
    )
