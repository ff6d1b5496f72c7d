"""What an operator may set about payments, whichever provider carries them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskSettings:
    """Which payments are refused or held before they are opened; 0 is no limit."""

    amount_minor_max: int = 0  # in the order's own currency
    hold_from_minor: int = 0  # an operator looks at these first
    window_seconds: int = 3_600  # in which starts are counted
    per_shopper_max: int = 0
    per_device_max: int = 0
    per_address_max: int = 0  # many shoppers may stand behind one address

    def __post_init__(self) -> None:
        assert self.amount_minor_max >= 0
        assert self.hold_from_minor >= 0
        assert 1 <= self.window_seconds <= 31 * 86_400
        assert self.per_shopper_max >= 0
        assert self.per_device_max >= 0
        assert self.per_address_max >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSettings:
    """How payments are started, asked about and refunded."""

    # Between questions about one attempt; the last pause repeats. Source: the
    # polling that WeChat Pay recommends after a create call.
    query_pauses_ms: tuple[int, ...] = (
        5_000, 30_000, 60_000, 180_000, 300_000, 600_000, 1_800_000,
    )  # fmt: skip
    query_after_expiry_ms: int = 1_000  # how soon after its expiry an attempt is asked about
    query_expired_pause_ms: int = 20_000  # from then on; an order must end within 60 s (P8)
    query_batch_max: int = 50  # attempts asked about in one pass over one shard
    calls_max: int = 8  # calls to one merchant account at once, of one pass over one shard
    settle_ms_max: int = 10_000  # of one pass over closing orders; P8 allows 60 s for all of it
    start_margin_seconds_max: int = 60  # no new attempt so shortly before pay_by
    creating_ms_max: int = 12_000  # two create calls are surely over after that
    refund_pauses_ms: tuple[int, ...] = (60_000, 60_000, 300_000, 1_800_000)  # >= 60 s at WeChat
    refund_batch_max: int = 50  # refunds worked on in one pass over one shard
    claim_ms: int = 30_000  # a worker that died lets go of what it had taken after that
    unsettled_alarm_ms: int = 1_800_000  # an attempt this long past its expiry is somebody's work
    refund_alarm_ms: int = 345_600_000  # four days: a bank card takes up to three working days
    callback_bytes_max: int = 65_536  # a notification is about 2 KB
    capture_batch_max: int = 64  # callbacks whose payments are committed together
    callback_seconds: float = 5.0  # WeChat Pay waits no longer for the acknowledgement
    risk: RiskSettings = field(default_factory=RiskSettings)

    def __post_init__(self) -> None:
        assert self.query_pauses_ms
        assert self.refund_pauses_ms
        assert all(pause > 0 for pause in (*self.query_pauses_ms, *self.refund_pauses_ms))
        assert self.query_after_expiry_ms > 0
        assert self.query_expired_pause_ms > 0
        assert self.query_batch_max >= 1
        assert self.calls_max >= 1
        assert self.settle_ms_max > 0
        assert self.start_margin_seconds_max >= 0
        assert self.creating_ms_max > 0
        assert self.refund_batch_max >= 1
        assert self.refund_alarm_ms > 0
        assert self.claim_ms > 0
        assert self.capture_batch_max >= 1
        assert self.callback_seconds > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """Which merchant account opens a payment, and which is left alone."""

    accounts: tuple[dict[str, Any], ...] = ()  # bounds, quota, weight, cost: RouteTerms
    rules: tuple[dict[str, Any], ...] = ()  # who comes first for what: RouteRule
    # Source: the defaults of hyperswitch's decision engine for the first three.
    results_max: int = 30  # the last ones of an account and product make its score
    explore_percent: int = 10  # of the orders go where the results do not lead
    slow_ms_min: int = 2_500  # a call that took this long is no good result
    results_ms_max: int = 600_000  # older results say nothing any more
    down_failures_min: int = 15  # of results_max: half of them bad
    breaker_failures_max: int = 5  # within the window; then it opens
    breaker_window_ms: int = 10_000
    breaker_open_ms: int = 15_000  # until one call is let through; longer than two time-outs
    day_offset_minutes: int = 480  # where the day of a quota begins: China's, east of UTC

    def __post_init__(self) -> None:
        assert 1 <= self.results_max <= 1_000
        assert 0 <= self.explore_percent <= 100
        assert self.slow_ms_min > 0
        assert self.results_ms_max > 0
        assert 1 <= self.down_failures_min <= self.results_max
        assert 1 <= self.breaker_failures_max <= 1_000
        assert self.breaker_window_ms > 0
        assert self.breaker_open_ms > 0
        assert -1_440 < self.day_offset_minutes < 1_440
