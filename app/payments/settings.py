"""What an operator may set about payments, whichever provider carries them."""

from dataclasses import dataclass


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
    calls_max: int = 8  # calls to providers running at once in one process
    settle_ms_max: int = 10_000  # of one pass over closing orders; P8 allows 60 s for all of it
    start_margin_seconds_max: int = 60  # no new attempt so shortly before pay_by
    creating_ms_max: int = 12_000  # two create calls are surely over after that
    refund_pauses_ms: tuple[int, ...] = (60_000, 60_000, 300_000, 1_800_000)  # >= 60 s at WeChat
    refund_batch_max: int = 50  # refunds worked on in one pass over one shard
    claim_ms: int = 30_000  # a worker that died lets go of what it had taken after that
    unsettled_alarm_ms: int = 1_800_000  # an attempt this long past its expiry is somebody's work
    callback_bytes_max: int = 65_536  # a notification is about 2 KB
    capture_batch_max: int = 64  # callbacks whose payments are committed together
    callback_seconds: float = 5.0  # WeChat Pay waits no longer for the acknowledgement

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
        assert self.claim_ms > 0
        assert self.capture_batch_max >= 1
        assert self.callback_seconds > 0
