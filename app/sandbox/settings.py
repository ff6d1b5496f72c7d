"""Where the sandbox gateway listens, whom it knows, and how fast its time runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.sandbox.alipay.merchants import AlipayMerchant
from app.sandbox.wechatpay.merchants import WechatpayMerchant


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """One gateway with one merchant."""

    host: str = "127.0.0.1"  # whoever reaches it can pay without money
    port: int = 8081  # 0 picks a free one
    public_url: str = ""  # as browsers reach it; empty: the address it listens on
    journal_dir: Path  # payments outlive the process: orders wait for their end
    keys: Mapping[str, bytes] = field(repr=False)  # shared with the merchant; the first one signs
    merchant_id: str = "sandbox-merchant"
    app_id: str = "sandbox-app"
    wechatpay: tuple[WechatpayMerchant, ...] = ()  # none: it does not speak WeChat Pay
    alipay: tuple[AlipayMerchant, ...] = ()  # none: it does not speak Alipay
    fee_bps: int = 60  # what bills charge of a payment, in hundredths of a percent
    bills_of_today: bool = True  # a real gateway has them the morning after
    clock_factor: int = 1  # how much faster than a real gateway it repeats callbacks
    refund_after_ms: int = 3_000  # a real refund takes minutes; not divided by the factor
    transfer_after_ms: int = 1_000  # until money sent to somebody has arrived
    late_callback_ms: int = 3_000  # what `late` means when nobody says
    second_callback_ms: int = 300  # between the two of a probe, or of news out of order
    callback_seconds: float = 5.0  # the patience of a real gateway
    callbacks_max: int = 32  # delivered at the same time
    payments_max: int = 200_000  # remembered; about 1 KB each
    keep_days: int = 30  # older ones are forgotten when the journal is opened

    def __post_init__(self) -> None:
        assert 0 <= self.port <= 65_535
        assert self.clock_factor >= 1
        assert 0 <= self.fee_bps < 10_000
        assert self.refund_after_ms >= 0
        assert self.transfer_after_ms >= 0
        assert self.second_callback_ms >= 0
        assert self.callback_seconds > 0
        assert self.callbacks_max >= 1
        assert self.payments_max >= 1
