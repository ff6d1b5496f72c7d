"""The gateway's own numbers: told from the merchant's, so a repeat is told the same one."""

import hashlib
from datetime import timedelta, timezone
from typing import Final

from app.kernel.clock import instant
from app.sandbox.records import Wire

BEIJING: Final = timezone(timedelta(hours=8))


def payment_number_of(wire: Wire, number: str, created_at_ms: int) -> str:
    """Give a payment a number as its gateway does: 28 digits at both real ones."""
    match wire:
        case Wire.PLAIN:
            return f"SBP{number}"
        case Wire.WECHATPAY:
            return f"42000{_digits(number, 23)}"
        case Wire.ALIPAY:
            return f"{_day(created_at_ms)}2200{_digits(number, 16)}"


def refund_number_of(wire: Wire, number: str) -> str:
    """Give a refund its number."""
    return f"SBR{number}" if wire is Wire.PLAIN else f"50300{_digits(number, 23)}"


def transfer_number_of(wire: Wire, number: str) -> str:
    """Give a number to a transfer, or a batch of them."""
    return f"13300{_digits(f'{wire}/{number}', 23)}"


def _digits(text: str, count: int) -> str:
    whole = int.from_bytes(hashlib.sha256(text.encode()).digest())
    return f"{whole % 10**count:0{count}d}"


def _day(at_ms: int) -> str:
    return instant(at_ms).astimezone(BEIJING).strftime("%Y%m%d")
