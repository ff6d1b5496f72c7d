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

        accounts = ("provider", "account")
        self._breakers = Counter(
            "doorbuster_payment_breaker_turns", "Breakers of merchant accounts, by new state.",
            (*accounts, "state"), registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "doorbuster_payment_call_failures", "Create calls without an answer that counts.",
            accounts, registry=registry,
        )  # fmt: skip

    def count_breaker(self, provider: str, account: str, state: str) -> None:
        self._breakers.labels(provider, account, state).inc()

    def count_call_failure(self, provider: str, account: str) -> None:
        self._failures.labels(provider, account).inc()

    def count_payment(self, provider: str, result: str) -> None:
        self._payments.labels(provider, result).inc()

    def count_callback(self, provider: str, result: str) -> None:
        self._callbacks.labels(provider, result).inc()

    def count_refund(self, provider: str, result: str) -> None:
        self._refunds.labels(provider, result).inc()
