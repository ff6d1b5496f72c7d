"""
What all Locust users of one process share: the plan, the lobby, the history.

Locust makes its users itself and gives them nothing, so this is the one place
with a value of its own at import: `BOARD`, filled by the locustfile.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import gevent  # type: ignore[import-untyped]  # ships no types
import gevent.event  # type: ignore[import-untyped]

from loadtest.codes import SharedCodes
from loadtest.history import History
from loadtest.lobby import GeneratorNotes, LobbyPlan
from loadtest.plan import Visit


@dataclass
class Board:
    """The plan being played."""

    history: History = field(default_factory=History)
    gateway_url: str = ""
    codes: SharedCodes = field(default_factory=SharedCodes)
    gave_up: int = 0
    _seats: int = 0
    _waiting: deque[Visit] = field(default_factory=deque)
    _release_at: float = 0.0
    _missed: int = 0
    _left: int = 0
    _planned: int = 0
    _cpu_at_release: float = 0.0
    everybody_left: gevent.event.Event = field(default_factory=gevent.event.Event)

    def fill(self, plan: LobbyPlan) -> None:
        """Take a plan to play."""
        self.history.sales = {terms.sale: terms for terms in plan.sales}
        self.history.tokens = plan.tokens
        self.gateway_url = plan.gateway_url
        self._waiting = deque(plan.visits)
        self._planned = len(plan.visits)
        self._release_at = plan.release_at

    def take(self) -> Visit | None:
        """Give the next visit, the earliest first; None when all are taken."""
        return self._waiting.popleft() if self._waiting else None

    def wait_for(self, visit: Visit) -> float:
        """Hold a shopper until the planned instant; tell that instant, monotonic seconds."""
        planned_at = self._release_at + visit.after_seconds
        early_seconds = planned_at - time.monotonic()
        if early_seconds < 0:
            self._missed += 1
        gevent.sleep(max(0.0, early_seconds))
        self._cpu_at_release = self._cpu_at_release or time.process_time()
        return planned_at

    def next_seat(self) -> int:
        """Count the orders that took a seat in a group; give the number of this one, from 0."""
        self._seats += 1
        return self._seats - 1

    def leave(self) -> None:
        """Count a shopper out; the last one ends the run."""
        self._left += 1
        if self._left == self._planned:
            self.everybody_left.set()

    def notes(self) -> GeneratorNotes:
        """Say what the generator cost; to be asked when everybody has left."""
        seconds = time.monotonic() - self._release_at
        used = time.process_time() - self._cpu_at_release
        return GeneratorNotes(
            cores=used / seconds if seconds > 0 else 0.0,
            missed=self._missed,
            gave_up=self.gave_up,
        )


BOARD: Final = Board()


def to_three_digits(response_time: float) -> int:
    """Round Locust's milliseconds to three significant digits instead of two."""
    return int(float(f"{response_time:.3g}"))
