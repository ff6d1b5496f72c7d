"""Metrics as Prometheus reads them, and logs as machines do."""

import asyncio
import json
import logging

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.lag import measure_lag
from app.telemetry.log import configure
from app.telemetry.metrics import Metrics, Sampled


def exposed(metrics: Metrics) -> dict[str, dict[frozenset[str], float]]:
    body, content_type = metrics.expose("")
    assert content_type.startswith("text/plain")
    told: dict[str, dict[frozenset[str], float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            told.setdefault(sample.name, {})[frozenset(sample.labels.values())] = sample.value
    return told


def test_plain_counts_come_out_as_counters_and_histograms():
    metrics = Metrics(role="api", process="api-0", version="1")
    metrics.requests.count("/v1/time", "GET", 200, 0.002)
    metrics.requests.count("/v1/time", "GET", 200, 0.001)
    metrics.requests.count("/v1/time", "GET", 200, 9.0)
    metrics.answers.count("s1", "sold_out", 3)
    metrics.answers.count("s1", "sold_out")
    told = exposed(metrics)
    series = frozenset({"/v1/time", "GET", "200"})
    assert told["doorbuster_requests_total"][series] == 3
    assert told["doorbuster_request_duration_seconds_count"][series] == 3
    assert told["doorbuster_request_duration_seconds_bucket"][series | {"0.001"}] == 1
    assert told["doorbuster_request_duration_seconds_bucket"][series | {"2.5"}] == 2
    assert told["doorbuster_request_duration_seconds_bucket"][series | {"+Inf"}] == 3
    assert told["doorbuster_answers_total"][frozenset({"s1", "sold_out"})] == 4


def test_every_metric_of_the_list_exists_with_its_unit():
    metrics = Metrics(role="worker", process="worker-0", version="1")
    names = {family.name for family in metrics.registry.collect()}
    for name in (
        "requests",
        "request_duration_seconds",
        "answers",
        "stock_units",
        "order_backlog_orders",
        "order_backlog_oldest_age_seconds",
        "flush_duration_seconds",
        "flush_batch_orders",
        "flush_fenced",
        "epochs",
        "bucket_closed_seconds",
        "shard_pool_wait_seconds",
        "dead_letters",
        "event_loop_lag_seconds",
        "build_info",
    ):
        assert f"doorbuster_{name}" in names


def test_a_sampled_gauge_is_read_when_asked():
    metrics = Metrics(role="api", process="api-0", version="1")
    held = {("a",): 1.0}
    metrics.add_sampled(Sampled("doorbuster_things", "Things.", ("kind",), lambda: held))
    assert exposed(metrics)["doorbuster_things"] == {frozenset("a"): 1.0}
    held["a",] = 2.0
    assert exposed(metrics)["doorbuster_things"] == {frozenset("a"): 2.0}


class Noted:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.full = asyncio.Event()

    def observe(self, amount: float) -> None:
        self.seconds.append(amount)
        if len(self.seconds) >= 3:
            self.full.set()


async def test_the_lag_is_observed_again_and_again():
    noted = Noted()
    measuring = asyncio.create_task(measure_lag(noted, 0.001))
    async with asyncio.timeout(10):
        await noted.full.wait()
    measuring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await measuring
    assert all(seconds >= 0 for seconds in noted.seconds)


@pytest.fixture
def _restored_logging():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = before, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.usefixtures("_restored_logging")
def test_a_line_off_a_terminal_is_json_with_role_level_and_instant(capsys):
    configure("worker", process="worker-1")
    structlog.get_logger().info("epoch_opened", sale="s1", epoch=2)
    logging.getLogger("some.library").warning("careful %s", "now")
    out, err = capsys.readouterr()
    ours, theirs = (json.loads(line) for line in err.splitlines())
    assert out == ""
    assert (ours["event"], ours["sale"], ours["level"]) == ("epoch_opened", "s1", "info")
    assert (ours["role"], ours["process"]) == ("worker", "worker-1")
    assert ours["at"].endswith("Z")
    assert (theirs["event"], theirs["level"]) == ("careful now", "warning")


@pytest.mark.usefixtures("_restored_logging")
def test_a_failure_is_one_line_with_its_trace(capsys):
    configure("api")
    try:
        raise ZeroDivisionError  # noqa: TRY301  it is what is logged
    except ZeroDivisionError:
        structlog.get_logger().exception("request_failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["exception"][0]["exc_type"] == "ZeroDivisionError"
