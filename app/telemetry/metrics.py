"""
Every metric of the service, with its unit: one registry per process.

The hot path counts in plain integers (`AnswerTally`, `RequestTally`) that are
handed over when Prometheus asks; everything slower uses prometheus-client's own
instruments. Labels never hold ids other than a sale's and a shard's.

`expose` gives the text of one process; each process listens on a port of its own.
"""

import platform
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.telemetry.requests import RequestTally

# From a commit on a quiet shard to a batch that waited for a lock.
FLUSH_BOUNDS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BATCH_BOUNDS_ORDERS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_000)
POOL_WAIT_BOUNDS_SECONDS: Final = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LAG_BOUNDS_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class AnswerTally(Collector):
    """Answers of the place_orders script, and refusals before it, by sale and answer."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def count(self, sale: str, answer: str, times: int = 1) -> None:
        """Count `times` answers, such as `sold_out`, of one sale."""
        key = (sale, answer)
        self._counts[key] = self._counts.get(key, 0) + times

    def collect(self) -> Iterator[Metric]:
        """Yield doorbuster_answers_total."""
        family = CounterMetricFamily(
            "doorbuster_answers",
            "Final answers to clicks.",
            labels=("sale", "answer"),
        )
        for key, times in self._counts.items():
            family.add_metric(key, times)
        yield family


class CallTally(Collector):
    """Calls of place_orders, counted in plain numbers on the hot path."""

    def __init__(self, sample: Callable[[], tuple[int, int, float]]) -> None:
        self._sample = sample

    def collect(self) -> Iterator[Metric]:
        """Yield calls, orders and seconds as counters."""
        meanings = ("Calls of place_orders.", "Orders in them.", "Time they took.")
        names = ("calls", "orders", "seconds")
        for name, meaning, value in zip(names, meanings, self._sample(), strict=True):
            family = CounterMetricFamily(f"doorbuster_orders_place_orders_{name}", meaning)
            family.add_metric((), value)
            yield family


class Sampled(Collector):
    """
    A gauge whose values are asked for when Prometheus asks.

    Args:
        name: with its unit.
        meaning: one sentence.
        labels: their names.
        sample: returns the label values and the value of each series, from memory.
    """

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: tuple[str, ...],
        sample: Callable[[], dict[tuple[str, ...], float]],
    ) -> None:
        self._name, self._meaning, self._labels, self._sample = name, meaning, labels, sample

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge as it is now."""
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, value in self._sample().items():
            family.add_metric(values, value)
        yield family


class Metrics:
    """
    The instruments of one process.

    Args:
        role: api, worker, coordinator or sandbox.
        process: tells processes of one role apart, such as `api-0`.
        version: of the service.
    """

    def __init__(self, *, role: str, process: str, version: str) -> None:
        self.registry = CollectorRegistry()
        self.role, self._process = role, process
        self.requests = RequestTally()
        self.answers = AnswerTally()
        self.registry.register(self.requests)
        self.registry.register(self.answers)
        ProcessCollector(registry=self.registry)
        self._add_build(version)
        self._add_orders()
        self._add_stock()
        self._add_letters()
        self.loop_lag_seconds = self._histogram(
            "event_loop_lag_seconds",
            "How late the event loop woke a sleeper.",
            LAG_BOUNDS_SECONDS,
            ("role", "process"),
        ).labels(role, process)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """
        Write everything out.

        Args:
            accept: the asker's Accept header.

        Returns:
            The text and its content type.
        """
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def add_sampled(self, sampled: Sampled) -> None:
        """Add a gauge that is read when Prometheus asks."""
        self.registry.register(sampled)

    def count_calls(self, sample: Callable[[], tuple[int, int, float]]) -> None:
        """Expose the hot path's plain counts: script calls, orders in them, seconds."""
        self.registry.register(CallTally(sample))

    def _add_build(self, version: str) -> None:
        labels = ("role", "process", "version", "python")
        build = self._gauge("build_info", "Always 1; the labels tell what runs.", labels)
        build.labels(self.role, self._process, version, platform.python_version()).set(1)

    def _add_orders(self) -> None:
        by_bucket = ("sale", "bucket")
        self.backlog_orders = self._gauge(
            "order_backlog_orders",
            "Orders placed and not yet flushed.",
            by_bucket,
        )
        self.backlog_oldest_age_seconds = self._gauge(
            "order_backlog_oldest_age_seconds",
            "Age of the oldest order that is not flushed.",
            by_bucket,
        )
        self.flush_duration_seconds = self._histogram(
            "flush_duration_seconds",
            "One batch, from its first statement to its commit.",
            FLUSH_BOUNDS_SECONDS,
            ("shard",),
        )
        self.flush_batch_orders = self._histogram(
            "flush_batch_orders",
            "Orders in one flushed batch.",
            BATCH_BOUNDS_ORDERS,
            ("shard",),
        )
        self.flush_fenced = self._counter(
            "flush_fenced",
            "Batches refused by the lease row: a newer epoch or owner.",
            ("shard",),
        )
        self.shard_pool_wait_seconds = self._histogram(
            "shard_pool_wait_seconds",
            "Waiting for a connection of a shard's pool.",
            POOL_WAIT_BOUNDS_SECONDS,
            ("shard",),
        )

    def _add_stock(self) -> None:
        self.stock_units = self._gauge(
            "stock_units",
            "Units of a sale's buckets on one shard: granted, and reserved by live orders.",
            ("sale", "state"),
        )
        self.epochs = self._counter("epochs", "Epochs opened.", ("reason",))
        self.bucket_closed_seconds = self._counter(
            "bucket_closed_seconds",
            "Time in which a bucket of an open sale sold nothing.",
            ("reason",),
        )

    def _add_letters(self) -> None:
        self.dead_letters = self._gauge("dead_letters", "Letters waiting for a person.", ("kind",))

    def _counter(self, name: str, meaning: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"doorbuster_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(f"doorbuster_{name}", meaning, labels, registry=self.registry)

    def _histogram(
        self,
        name: str,
        meaning: str,
        bounds: tuple[float, ...],
        labels: tuple[str, ...],
    ) -> Histogram:
        full = f"doorbuster_{name}"
        return Histogram(full, meaning, labels, buckets=bounds, registry=self.registry)
