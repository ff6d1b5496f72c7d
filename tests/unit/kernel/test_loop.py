import asyncio
from dataclasses import dataclass, field

import pytest

from app.kernel.errors import ShardUnavailable
from app.kernel.loop import Pace, pause, run_loop

EAGER = Pace(idle_ms=0, retry_ms_min=1, retry_ms_max=4)


@dataclass
class Passes:
    """A worker whose passes are told beforehand: a count of work, or an error."""

    told: list[int | Exception]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    done: int = 0

    async def once(self) -> int:
        outcome = self.told[self.done]
        self.done += 1
        if self.done == len(self.told):
            self.stopping.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@dataclass
class Notes:
    """Keeps what the loop reported."""

    waits_ms: list[int] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def pass_failed(self, worker: str, error: BaseException, wait_ms: int) -> None:
        assert worker == "flusher"
        self.errors.append(error)
        self.waits_ms.append(wait_ms)


async def run(told: list[int | Exception], pace: Pace = EAGER) -> tuple[Passes, Notes]:
    passes, notes = Passes(told), Notes()
    async with asyncio.timeout(5):
        await run_loop("flusher", passes.once, passes.stopping, notes, pace)
    return passes, notes


async def test_a_loop_that_is_told_to_stop_before_it_starts_does_nothing():
    passes, notes = Passes([1]), Notes()
    passes.stopping.set()

    await run_loop("flusher", passes.once, passes.stopping, notes, EAGER)

    assert passes.done == 0


async def test_a_pass_that_did_something_is_followed_at_once_by_the_next():
    passes, _ = await run([3] * 50, Pace(idle_ms=60_000))

    assert passes.done == 50


async def test_stopping_ends_the_wait_of_an_idle_loop():
    passes, _ = await run([0], Pace(idle_ms=60_000))

    assert passes.done == 1


async def test_stopping_ends_the_wait_of_a_failing_loop():
    passes, notes = await run([ValueError()], Pace(retry_ms_min=60_000, retry_ms_max=60_000))

    assert passes.done == 1
    assert 45_000 <= notes.waits_ms[0] <= 60_000


async def test_a_worker_outlives_its_failures():
    passes, notes = await run([ValueError("first"), 1, ValueError("second"), 1])

    assert passes.done == 4
    assert [str(error) for error in notes.errors] == ["first", "second"]


async def test_the_pauses_double_up_to_the_longest_and_begin_anew_after_a_success():
    failures: list[int | Exception] = [ValueError()] * 5
    _, notes = await run([*failures, 1, ValueError()], Pace(retry_ms_min=4, retry_ms_max=16))

    for wait_ms, ceiling_ms in zip(notes.waits_ms, [4, 8, 16, 16, 16, 4], strict=True):
        assert ceiling_ms * 0.75 - 1 <= wait_ms <= ceiling_ms


async def test_a_store_that_stays_away_is_told_at_the_first_and_every_tenth_pass():
    away: list[int | Exception] = [ShardUnavailable(shard=0)] * 25
    _, notes = await run(away, Pace(retry_ms_min=1, retry_ms_max=1))

    assert len(notes.errors) == 3


async def test_a_failed_assertion_is_a_bug_and_ends_the_loop():
    with pytest.raises(AssertionError, match="negative stock"):
        await run([AssertionError("negative stock"), 1])


async def test_a_cancelled_loop_ends():
    started = asyncio.Event()

    async def once() -> int:
        started.set()
        return await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(run_loop("flusher", once, asyncio.Event(), Notes(), EAGER))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_pause_ends_by_itself():
    async with asyncio.timeout(5):
        await pause(asyncio.Event(), 1)


@pytest.mark.parametrize(
    "numbers",
    [
        {"idle_ms": -1},
        {"retry_ms_min": 0},
        {"retry_ms_min": 10, "retry_ms_max": 9},
    ],
)
def test_a_pace_that_makes_no_sense_is_refused(numbers):
    with pytest.raises(AssertionError):
        Pace(**numbers)
