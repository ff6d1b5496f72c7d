"""What orders count about themselves, for /metrics and the log."""

import structlog

from app.kernel.errors import DoorbusterError
from app.orders.flush_report import FlushReport
from app.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)


class FlushTally:
    """Counts flushes; tells of fences and stops, which are never routine."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def flushed(self, shard: int, report: FlushReport, seconds: float) -> None:
        """Note one batch."""
        label = str(shard)
        bucket = {"sale": report.position.sale, "bucket": report.position.bucket}
        if report.fenced:
            self._metrics.flush_fenced.labels(label).inc()
            _log.warning("flush_fenced", shard=shard, epoch=report.position.epoch, **bucket)
            return
        self._metrics.flush_duration_seconds.labels(label).observe(seconds)
        self._metrics.flush_batch_orders.labels(label).observe(report.rows)
        if report.recover is not None:
            _log.error("flush_stopped_bucket", shard=shard, reason=report.recover, **bucket)
        if report.letters:
            _log.error("orders_dead_lettered", shard=shard, letters=report.letters, **bucket)

    def trim_failed(self, shard: int, error: DoorbusterError) -> None:
        """Note that the stream was not trimmed; it is tried again at the next look."""
        _log.warning("trim_failed", shard=shard, error=str(error))


class PlacementTally:
    """Counts script calls in plain numbers: this is the hot path."""

    def __init__(self) -> None:
        self.calls = 0
        self.orders = 0
        self.seconds = 0.0
        self._refused: set[tuple[int, int]] = set()

    def called(self, orders: int, seconds: float) -> None:
        """Note one call of place_orders."""
        self.calls += 1
        self.orders += orders
        self.seconds += seconds

    def read(self) -> tuple[int, int, float]:
        """Return calls, orders and seconds so far."""
        return self.calls, self.orders, self.seconds

    def refused(self, sale: int, bucket: int, error: DoorbusterError) -> None:
        """Log what Redis refuses of a bucket, once until it answers again."""
        if (sale, bucket) not in self._refused:
            self._refused.add((sale, bucket))
            _log.error("redis_refused", sale=sale, bucket=bucket, error=str(error))

    def answered(self, sale: int, bucket: int) -> None:
        """Forget a refusal."""
        self._refused.discard((sale, bucket))

    def broken(self, sale: int, bucket: int, epoch: int, error: DoorbusterError) -> None:
        """Raise the alarm: an epoch's state cannot be, and this process sells it no more."""
        _log.error("bucket_broken", sale=sale, bucket=bucket, epoch=epoch, error=str(error))
