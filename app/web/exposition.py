"""Serve this process's metrics to Prometheus, and tell it where the others are."""

from collections.abc import Sequence

from aiohttp import web

from app.telemetry.metrics import Metrics
from app.web.access import Access
from app.web.body import respond
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


def targets_endpoint(targets: Sequence[str]) -> Endpoint:
    """
    Make GET /metrics/targets.

    Args:
        targets: host:port of the metrics listener of every process.

    Source:
        Prometheus, HTTP service discovery.
    """

    async def tell(request: web.Request) -> web.Response:
        return respond(request, 200, [{"targets": list(targets), "labels": {"job": "doorbuster"}}])

    return Endpoint(
        method="GET",
        path="/metrics/targets",
        handler=tell,
        summary="Tell Prometheus where every process serves its metrics.",
        access=Access.PUBLIC,
        answers={200: None},
    )
