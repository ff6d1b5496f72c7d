"""
The seckill: everybody waits in the lobby and clicks when the sale opens.

A closed-loop tool makes a poor witness of a rush: a user who waits for an answer
sends nothing meanwhile. So each visit has its planned instant, and what is noted
is when the click was meant, when it left and when it was answered.
"""

import time
from typing import Final

import gevent  # type: ignore[import-untyped]  # ships no types
from locust import task

from loadtest.answers import accepted_id
from loadtest.plan import Clicking, Visit, other_key
from loadtest.scenarios.clicking import LobbyShopper

_ONE: Final = {"quantity": 1}


class SeckillShopper(LobbyShopper):
    """Clicks, some of them twice, and is gone when the answer is final."""

    @task
    def visit(self) -> None:
        """Be one shopper."""
        self.play_next_visit(self._play)

    def _play(self, visit: Visit, planned_at: float) -> None:
        clicks = 2 if visit.clicking is Clicking.TWICE_AT_ONCE else 1
        spawned = [
            gevent.spawn(self.click_until_final, visit, visit.key, planned_at, _ONE)
            for _ in range(clicks)
        ]
        answers = [greenlet.get() for greenlet in spawned]
        if not accepted_id(answers):
            return
        if visit.clicking is Clicking.AGAIN_LATER:
            self.click_until_final(visit, visit.key, time.monotonic(), _ONE)
        if visit.clicking is Clicking.OTHER_KEY:
            self.click_until_final(visit, other_key(visit.key), time.monotonic(), _ONE)
