"""
The watch: gauges of stock and backlog, for Prometheus.

Each second the leader of a shard reads the lease rows and the streams of its
buckets, off the hot path. Who does not lead shows nothing, so that sums over
processes mean something.
"""

import time
from collections import Counter
from datetime import UTC, datetime

from redis.asyncio import Redis

from app.inventory.lease import BucketMode, Lease
from app.inventory.lease_store import live_leases
from app.inventory.queue_store import read_queues
from app.inventory.queues import Queue, look_at_queues
from app.storage.duties import Duties
from app.storage.shards import LockPurpose, Shard
from app.telemetry.metrics import Metrics


class Watch:
    """Keeps the gauges of one shard's buckets."""

    def __init__(
        self, shard: Shard, duties: Duties, redis: Redis, deployment: str, metrics: Metrics
    ) -> None:
        self._shard = shard
        self._duties = duties
        self._redis = redis
        self._deployment = deployment
        self._metrics = metrics
        self._shown: set[tuple[str, str]] = set()
        self._looked_at = time.monotonic()

    async def watch_once(self) -> int:
        """
        Look once.

        Returns:
            0: the loop's idle time is the time between two looks.

        Raises:
            ShardUnavailable: the gauges stay as they were.
        """
        if not await self._duties.has(LockPurpose.COORDINATE):
            self._forget(set())
            return 0
        rows, letters = await read_queues(self._shard)
        queues = await look_at_queues(self._shard.index, rows, self._redis, self._deployment)
        leases = await live_leases(self._shard)
        self._show_queues(queues)
        self._show_stock(leases)
        for kind, waiting in letters.items():
            self._metrics.dead_letters.labels(kind).set(waiting)
        return 0

    def _show_queues(self, queues: list[Queue]) -> None:
        shown = set()
        for queue in queues:
            name = (queue.sale, str(queue.bucket))
            shown.add(name)
            if queue.orders is not None:
                self._metrics.backlog_orders.labels(*name).set(queue.orders)
            if queue.oldest_age_ms is not None:
                age = self._metrics.backlog_oldest_age_seconds.labels(*name)
                age.set(queue.oldest_age_ms / 1000)
        self._forget(shown)

    def _show_stock(self, leases: list[Lease]) -> None:
        now, units = time.monotonic(), Counter[tuple[str, str]]()
        for lease in leases:
            units[lease.sale_id, "granted"] += lease.granted
            units[lease.sale_id, "reserved"] += lease.reserved
            in_window = lease.opens_at <= datetime.now(UTC) < lease.closes_at
            if lease.state is not BucketMode.OPEN and in_window:
                reason = lease.recover_reason or "recovery"
                self._metrics.bucket_closed_seconds.labels(reason).inc(now - self._looked_at)
        for name, count in units.items():
            self._metrics.stock_units.labels(*name).set(count)
        self._looked_at = now

    def _forget(self, shown: set[tuple[str, str]]) -> None:
        """Take away the gauges of buckets that are closed, or not ours any more."""
        for name in self._shown - shown:
            self._metrics.backlog_orders.remove(*name)
            self._metrics.backlog_oldest_age_seconds.remove(*name)
        self._shown = shown
