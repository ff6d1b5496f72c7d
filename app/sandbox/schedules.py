"""
How long real gateways wait before they repeat a callback.

Source:
    docs/PAYMENTS.md §1.5 and §2.4, from the providers' documentation.
"""

from typing import Final

WECHATPAY_RETRY_SECONDS: Final = (
    15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800,
    21_600, 21_600,
)  # fmt: skip
ALIPAY_RETRY_SECONDS: Final = (240, 600, 600, 3_600, 7_200, 21_600, 54_000)
