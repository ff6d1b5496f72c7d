"""
How long the closer leaves an order alone that providers could not tell the end of; pure.

A payment may stay unknown for as long as it can be paid: a code that nobody has scanned
is no trade yet at Alipay, however often it is asked. So an order is asked about after a
short pause, then after twice as long each time, up to a longest pause.
"""

from collections.abc import Iterable
from typing import NamedTuple

from app.kernel.ids import OrderKey


class _Pause(NamedTuple):
    until_ms: int
    length_ms: int


class SettlePauses:
    """The pauses of the closing orders of one shard; whoever comes next begins without any."""

    def __init__(self, first_ms: int, longest_ms: int) -> None:
        assert 0 < first_ms <= longest_ms
        self._first_ms = first_ms
        self._longest_ms = longest_ms
        self._pauses: dict[OrderKey, _Pause] = {}

    def __len__(self) -> int:
        return len(self._pauses)

    def take_due(self, keys: Iterable[OrderKey], now_ms: int) -> list[OrderKey]:
        """Return those that may be asked about now; the next pause of each begins."""
        due = [key for key in keys if self._is_due(key, now_ms)]
        self._pauses.update((key, self._next(key, now_ms)) for key in due)
        return due

    def forget_ended(self, now_ms: int) -> None:
        """Drop the orders that nobody has asked for since their pause: they have ended."""
        latest = now_ms - self._longest_ms
        self._pauses = {key: one for key, one in self._pauses.items() if one.until_ms > latest}

    def _is_due(self, key: OrderKey, now_ms: int) -> bool:
        pause = self._pauses.get(key)
        return pause is None or pause.until_ms <= now_ms

    def _next(self, key: OrderKey, now_ms: int) -> _Pause:
        last = self._pauses.get(key)
        doubled = self._first_ms if last is None else 2 * last.length_ms
        length_ms = min(doubled, self._longest_ms)
        return _Pause(now_ms + length_ms, length_ms)
