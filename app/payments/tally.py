"""What payments count about themselves, for /metrics."""

from prometheus_client import CollectorRegistry, Counter


class PaymentTally:
    """
    Payments and callbacks by provider and result.

    Results of payments: `opened`, `not_sent`, `rejected`, `unknown` (of a create
    call), `paid`, `paid_late`, `closed`, and the mismatches. Results of callbacks:
    the outcome of the event, or the reason of the refusal.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("provider", "result")
        self._payments = Counter(
            "doorbuster_payments", "Payment attempts, by what became of them.", labels,
            registry=registry,
        )  # fmt: skip
        self._callbacks = Counter(
            "doorbuster_payment_callbacks", "Callbacks of providers, by what became of them.",
            labels, registry=registry,
        )  # fmt: skip
        self._refunds = Counter(
            "doorbuster_payment_refunds", "Refunds, by what became of them.", labels,
            registry=registry,
        )  # fmt: skip

    def count_payment(self, provider: str, result: str) -> None:
        self._payments.labels(provider, result).inc()

    def count_callback(self, provider: str, result: str) -> None:
        self._callbacks.labels(provider, result).inc()

    def count_refund(self, provider: str, result: str) -> None:
        self._refunds.labels(provider, result).inc()
