"""
Three ways to click: as fast as answered, by a timetable, or at a rate whatever happens.

Every wait is counted from the *planned* instant, so a service that stalls cannot
hide it by slowing its clients down.
"""

import asyncio
import heapq
import itertools
import random
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from loadtest.bench.job import SLOTS_PER_SECOND, ClosedLoop, Job, OpenLoop, Tally, Timetable
from loadtest.bench.wire import CUT, GAVE_UP, Line

LAST_ANSWERS_SECONDS_MAX: Final = 10.0
_TICK_SECONDS: Final = 0.001  # what the event loop's timers resolve


class _Driving:
    """A job under way: its lines, its deck, its tally."""

    def __init__(self, job: Job, requests: Iterator[bytes]) -> None:
        self.job = job
        self.tally = Tally()
        self.lines: list[Line] = []
        self._requests = requests
        self._began = self._from = self._until = 0.0
        self._last_answer = 0.0
        self._under_way = 0
        self._is_over = False
        self._quiet = asyncio.Event()

    async def play(self) -> Tally:
        """Open the lines, click until the window is over, wait for the last answers."""
        self.lines = [await self._open() for _ in range(self.job.connections)]
        self._began = time.monotonic()
        self._from = self._began + self.job.warm_seconds
        self._until = self._from + self.job.seconds if self.job.seconds else float("inf")
        self._start()
        if self.job.seconds:
            await asyncio.sleep(self._until - time.monotonic())
            self._is_over = True
        await self._let_finish()
        for line in self.lines:
            line.cut()
        self.tally.seconds = self.job.seconds or self._last_answer - self._began
        return self.tally

    def answered(self, line: Line, answer: str, now: float) -> None:
        self._note(answer, line.planned_at, line.sent_at, now)
        self._go_on(line, now)

    def lost(self, line: Line) -> None:
        """Open another line in the place of one that the server has cut."""
        if line.waits:
            line.waits = False
            self._note(CUT, line.planned_at, line.sent_at, time.monotonic())
        self._replace(line)

    def _start(self) -> None:
        raise NotImplementedError

    def _go_on(self, line: Line, now: float) -> None:
        raise NotImplementedError

    async def _open(self) -> Line:
        loop = asyncio.get_running_loop()
        made = await loop.create_connection(lambda: Line(self), "127.0.0.1", self.job.port)
        return made[1]

    def _replace(self, line: Line) -> None:
        self.lines.remove(line)
        if not self._is_over:
            task = asyncio.get_running_loop().create_task(self._open())
            task.add_done_callback(self._reopened)

    def _reopened(self, task: "asyncio.Task[Line]") -> None:
        if task.cancelled() or task.exception() is not None:
            return  # refused: one shopper fewer
        line = task.result()
        self.lines.append(line)
        self._go_on(line, time.monotonic())

    def _click(self, line: Line, planned_at: float, now: float) -> bool:
        """Send the next request of the deck; say whether there was one."""
        request = None if self._is_over else next(self._requests, None)
        if request is None:
            self._run_out()
            return False
        self._under_way += 1
        line.click(request, planned_at, now)
        return True

    def _run_out(self) -> None:
        if not self._is_over:
            self.tally.is_played_out = self._is_over = True
        if self._under_way == 0:
            self._quiet.set()

    async def _let_finish(self) -> None:
        if self.job.seconds and self._under_way == 0:
            return
        wait = LAST_ANSWERS_SECONDS_MAX if self.job.seconds else None
        try:
            async with asyncio.timeout(wait):
                await self._quiet.wait()
        except TimeoutError:
            self.tally.totals["unanswered"] += self._under_way

    def _note(self, answer: str, planned_at: float, sent_at: float, now: float) -> None:
        tally = self.tally
        tally.totals[answer] += 1
        self._under_way -= 1
        self._last_answer = now
        if self._is_over and self._under_way == 0:
            self._quiet.set()
        if not self._from <= now < self._until:
            return
        waits = tally.waits_ms.get(answer)
        if waits is None:
            waits = tally.waits_ms[answer] = array("f")
            tally.slots[answer] = Counter()
        waits.append((now - planned_at) * 1000)
        tally.slots[answer][int((now - self._from) * SLOTS_PER_SECOND)] += 1
        tally.sent_late_ms.append((sent_at - planned_at) * 1000)


class _Closed(_Driving):
    def _start(self) -> None:
        for line in list(self.lines):
            self._go_on(line, time.monotonic())

    def _go_on(self, line: Line, now: float) -> None:
        self._click(line, now, now)


class _ByTimetable(_Driving):
    """Each line clicks at phase + n x interval; the instants it misses are left out."""

    def __init__(self, job: Job, requests: Iterator[bytes], pace: Timetable) -> None:
        super().__init__(job, requests)
        self._pace = pace
        self._serial = itertools.count()
        self._staying = 0
        self._due: list[tuple[float, int, Line]] = []
        self._patience: deque[tuple[float, Line, int]] = deque()

    def _start(self) -> None:
        for line in self.lines:
            self._plan(line, self._began)
        self._tick()
        if self._pace.stay:
            leave_at = self._from + self._pace.surge_seconds - self._began
            asyncio.get_running_loop().call_later(leave_at, self._leave)

    def _leave(self) -> None:
        """Send home all but those who stay; what they waited for nobody hears."""
        now = time.monotonic()
        self._staying = self._pace.stay
        for line in self.lines[self._pace.stay :]:
            if line.waits:
                line.waits = False
                self._note(GAVE_UP, line.planned_at, line.sent_at, now)
            line.cut()
        gone = set(self.lines[self._pace.stay :])
        self._due = [due for due in self._due if due[2] not in gone]
        heapq.heapify(self._due)
        del self.lines[self._pace.stay :]

    def _go_on(self, line: Line, now: float) -> None:
        if self._staying and len(self.lines) > self._staying:  # it reconnected too late
            self.lines.remove(line)
            line.cut()
            return
        self._plan(line, now)

    def _plan(self, line: Line, now: float) -> None:
        """Plan this shopper's next instant after now; phases are spread by the first one."""
        interval = self._pace.interval_seconds
        passed = (now - line.planned_at) // interval + 1 if line.planned_at else random.random()  # noqa: S311  spreads clicks
        due = (line.planned_at or now) + passed * interval
        heapq.heappush(self._due, (due, next(self._serial), line))

    def _tick(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, line = heapq.heappop(self._due)
            if self._click(line, due, now):
                self._patience.append((due + self._pace.patience_seconds, line, line.clicks))
        while self._patience and self._patience[0][0] <= now:
            _, line, click = self._patience.popleft()
            if line.waits and line.clicks == click:
                self._give_up(line, now)
        if not self._is_over or self._under_way:
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _give_up(self, line: Line, now: float) -> None:
        line.waits = False
        line.cut()
        self._note(GAVE_UP, line.planned_at, line.sent_at, now)
        self._replace(line)


class _Open(_Driving):
    """Arrivals are a Poisson process; who finds no free line waits for one."""

    def __init__(self, job: Job, requests: Iterator[bytes], pace: OpenLoop) -> None:
        super().__init__(job, requests)
        self._per_second = pace.per_second
        self._draw = random.Random(job.deck.first)  # noqa: S311  a plan is no secret
        self._next_at = 0.0
        self._idle: list[Line] = []
        self._queue: deque[float] = deque()

    def _start(self) -> None:
        self._idle = list(self.lines)
        self._next_at = self._began
        self._tick()

    def _go_on(self, line: Line, now: float) -> None:
        if not self._queue or not self._click(line, self._queue.popleft(), now):
            self._idle.append(line)

    def _replace(self, line: Line) -> None:
        if line in self._idle:
            self._idle.remove(line)
        super()._replace(line)

    def _tick(self) -> None:
        now = time.monotonic()
        while self._next_at <= now:
            self._arrive(self._next_at, now)
            self._next_at += self._draw.expovariate(self._per_second)
        if not self._is_over:
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _arrive(self, planned_at: float, now: float) -> None:
        if not self._idle:
            self._queue.append(planned_at)
            return
        line = self._idle.pop()
        if not self._click(line, planned_at, now):
            self._idle.append(line)


def make_driver(job: Job, requests: Iterator[bytes]) -> _Driving:
    """Make what plays a job, in a running loop."""
    match job.pace:
        case ClosedLoop():
            return _Closed(job, requests)
        case Timetable():
            return _ByTimetable(job, requests, job.pace)
        case OpenLoop():
            return _Open(job, requests, job.pace)
