"""Health, metrics and the OpenAPI document, over a real socket."""

import json

from app.telemetry.metrics import Metrics
from app.web.exposition import metrics_endpoint
from app.web.health import Readiness, health_endpoints
from app.web.openapi import openapi_endpoint
from tests.contract.web_listener import ENDPOINTS, get, line_to, listening


async def ask(endpoints, path: str, **more):
    async with listening(endpoints, **more) as listener, line_to(listener) as line:
        line.send(get(path))
        status, headers, body = await line.reply()
        return status, headers, body


async def test_readiness_follows_start_and_drain_and_liveness_does_not():
    readiness = Readiness()
    endpoints = health_endpoints(readiness, {})

    async def statuses() -> list[int]:
        return [(await ask(endpoints, path))[0] for path in ("/livez", "/startupz", "/readyz")]

    assert await statuses() == [200, 503, 503]
    readiness.started = True
    assert await statuses() == [200, 200, 200]
    readiness.draining = True
    assert await statuses() == [200, 200, 503]


async def test_a_store_that_is_away_is_listed_and_fails_nothing():
    readiness = Readiness()
    readiness.started = True

    async def away() -> str:
        return "unavailable"

    endpoints = health_endpoints(readiness, {"redis": away})
    status, _, body = await ask(endpoints, "/readyz?verbose")
    assert status == 200
    assert json.loads(body) == {"status": "ready", "checks": {"redis": "unavailable"}}
    assert "checks" not in json.loads((await ask(endpoints, "/readyz"))[2])


async def test_the_metrics_of_a_process_tell_its_requests():
    metrics = Metrics(role="api", process="api-0", version="1")
    endpoints = [metrics_endpoint(metrics)]
    async with (
        listening(endpoints, tally=metrics.requests) as listener,
        line_to(listener) as line,
    ):
        line.send(get("/metrics"))
        await line.reply()
        line.send(get("/metrics"))
        status, headers, body = await line.reply()
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    counted = 'doorbuster_requests_total{method="GET",route="/metrics",status="200"} 1.0'
    assert counted in body.decode()


async def test_the_document_lists_the_routes_that_are_mounted():
    document = openapi_endpoint(ENDPOINTS, title="Doorbuster", version="1")
    status, headers, body = await ask([*ENDPOINTS, document], "/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    listed = {
        (method.upper(), path)
        for path, operations in json.loads(body)["paths"].items()
        for method in operations
    }
    assert listed == {(one.method, one.path) for one in ENDPOINTS}
