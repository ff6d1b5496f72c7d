"""What this stage counts about itself, for /metrics and the log."""

from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from app.kernel.errors import SealKeyMissing

DELIVERY: Final = "delivery"
INVOICE: Final = "invoice"

_log = structlog.get_logger(__name__)


class UnreadableTally:
    """Counts personal fields that were shown as unreadable; names each missing key once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._shown = Counter(
            "doorbuster_unreadable_fields",
            "Views that left out what is sealed under a key that this process lacks.",
            ("field",),
            registry=registry,
        )
        self._named: set[object] = set()

    def left_out(self, field: str, error: SealKeyMissing) -> None:
        """Count one view; `field` is DELIVERY or INVOICE."""
        self._shown.labels(field).inc()
        kid = error.fields["kid"]
        if kid not in self._named:
            self._named.add(kid)
            _log.error("seal_key_missing", **error.fields)
