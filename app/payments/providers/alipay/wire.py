"""
How Alipay writes amounts and instants: yuan as text, the clock of Beijing; pure.

Inside, money is whole minor units. A text is taken only when it is a plain
decimal of at most two places: no sign, no exponent, no other script's digits.
"""

import re
from datetime import datetime, timedelta, timezone
from typing import Final

from app.kernel.clock import is_in_reach

BEIJING: Final = timezone(timedelta(hours=8), "Asia/Shanghai")  # no summer time since 1991
CURRENCY: Final = "CNY"
AMOUNT_MINOR_MAX: Final = 10_000_000_000  # 100 000 000 yuan, Alipay's own bound

_YUAN: Final = re.compile(r"(0|[1-9][0-9]{0,12})(?:\.([0-9]{1,2}))?", re.ASCII)
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?", re.ASCII
)


def to_yuan(amount_minor: int) -> str:
    """Write 1234 as 12.34."""
    assert amount_minor >= 0
    whole, rest = divmod(amount_minor, 100)
    return f"{whole}.{rest:02d}"


def from_yuan(text: str) -> int:
    """
    Read 12.34, 12.3 or 12 as 1234, 1230 or 1200 minor units.

    Raises:
        ValueError: it is not such a text.
    """
    match = _YUAN.fullmatch(text)
    if match is None:
        message = "not a plain decimal of at most two places"
        raise ValueError(message)
    return int(match[1]) * 100 + int((match[2] or "0").ljust(2, "0"))


def from_signed_yuan(text: str) -> int:
    """Read an amount of a bill, where a refund is negative; see from_yuan."""
    return -from_yuan(text[1:]) if text.startswith("-") else from_yuan(text)


def to_beijing(moment: datetime) -> str:
    """Write an aware instant as Alipay does, to the second, rounded down."""
    assert moment.tzinfo is not None
    return moment.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")


def from_beijing(text: str) -> datetime:
    """
    Read `yyyy-MM-dd HH:mm:ss`, with or without a fraction.

    Raises:
        ValueError: it is not such a text, or no such instant.
    """
    if _INSTANT.fullmatch(text) is None:
        message = "not yyyy-MM-dd HH:mm:ss"
        raise ValueError(message)
    moment = datetime.fromisoformat(text.partition(".")[0]).replace(tzinfo=BEIJING)
    if not is_in_reach(moment):
        message = "out of reach"
        raise ValueError(message)
    return moment
