"""
Count requests with plain integers, and hand them to prometheus-client when it asks.

A labelled prometheus counter and histogram cost several microseconds together;
this costs a fraction of one, and it is on the way of every request.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# From a refusal without a store to a caller who asked to wait.
BOUNDS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class _Counts:
    """What is known about one (route, method, status)."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_SECONDS) + 1)
        self.seconds = 0.0


class RequestTally(Collector):
    """Requests by route, method and status: how many, and how long they took."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], _Counts] = {}

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """
        Count one answered request.

        Args:
            route: its pattern, never the path itself.
            method: one of a closed list.
            status: of the answer.
            seconds: from the whole header to the answer.
        """
        key = (route, method, status)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = _Counts()
        counts.buckets[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        counts.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield doorbuster_requests_total and doorbuster_request_duration_seconds."""
        labels = ("route", "method", "status")
        requests = CounterMetricFamily(
            "doorbuster_requests",
            "Requests answered.",
            labels=labels,
        )
        durations = HistogramMetricFamily(
            "doorbuster_request_duration_seconds",
            "From the whole header to the answer.",
            labels=labels,
        )
        names = [*(str(bound) for bound in BOUNDS_SECONDS), "+Inf"]
        for (route, method, status), counts in self._counts.items():
            values = (route, method, str(status))
            cumulated = list(accumulate(counts.buckets))
            requests.add_metric(values, cumulated[-1])
            buckets = list(zip(names, map(float, cumulated), strict=True))
            durations.add_metric(values, buckets, counts.seconds)
        yield requests
        yield durations
