"""What inventory counts about itself, for /metrics and the log."""

import structlog

from app.inventory.lease import Lease
from app.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)


class RecoveryTally:
    """Counts epochs; each is a line in the log too."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def epoch_opened(self, lease: Lease, reason: str, seconds: float) -> None:
        """Note a bucket that sells again, or for the first time."""
        self._metrics.epochs.labels(reason).inc()
        _log.info("epoch_opened", reason=reason, duration_s=round(seconds, 3), **_named(lease))

    def redis_state_lost(self, lease: Lease) -> None:
        """Raise the alarm: every key of a bucket is gone."""
        _log.error("redis_state_lost", **_named(lease))

    def epochs_run_out(self, lease: Lease) -> None:
        """Raise the alarm: few epochs are left for this bucket."""
        _log.error("epochs_run_out", **_named(lease))

    def bucket_closed(self, lease: Lease) -> None:
        """Note the end of a bucket."""
        _log.info("bucket_closed", **_named(lease))


def _named(lease: Lease) -> dict[str, object]:
    return {"sale": lease.sale_id, "bucket": lease.bucket, "epoch": lease.epoch}
