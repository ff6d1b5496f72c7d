"""The one way to ask for the time."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Protocol

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What asks for the time takes one of these."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


@lru_cache(maxsize=4_096)  # every order of a batch has the same one
def instant(unix_ms: int) -> datetime:
    """Turn Unix milliseconds into an aware UTC datetime, to the millisecond."""
    return datetime.fromtimestamp(unix_ms // 1000, UTC).replace(
        microsecond=unix_ms % 1000 * 1000,
    )


def unix_ms(moment: datetime) -> int:
    """Turn an aware datetime into Unix milliseconds, rounded down."""
    assert moment.tzinfo is not None, "a naive instant has no meaning"
    return (moment - _EPOCH) // _MILLISECOND  # a float would be a millisecond off at times


def is_in_reach(moment: datetime) -> bool:
    """Whether an instant that came from outside can be stored, and days be added to it."""
    return _EARLIEST <= moment < _LATEST
