"""While one batch is in flight the next one gathers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from app.kernel.group_commit import GroupCommit
from tests.waiting import eventually


@dataclass
class Counter:
    """Where items are served: one batch at a time is let through by hand."""

    batches: list[list[int]] = field(default_factory=list)
    gates: list[asyncio.Event] = field(default_factory=list)
    error: Exception | None = None
    short_by: int = 0

    async def commit(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        if self.error is not None:
            raise self.error
        return [item * 10 for item in items][: len(items) - self.short_by]

    async def served(self, batches: int) -> None:
        await eventually(lambda: len(self.gates) >= batches)

    def let_through(self) -> None:
        for gate in self.gates:
            gate.set()


@pytest.fixture
def counter():
    return Counter()


def put_all(queue, items):
    return [asyncio.create_task(queue.put(item)) for item in items]


async def test_the_first_item_is_served_at_once_and_the_rest_gather(counter):
    queue = GroupCommit(counter.commit, items_max=10)
    tasks = put_all(queue, range(1, 6))
    await counter.served(1)
    assert counter.batches == [[1, 2, 3, 4, 5]]
    tasks += put_all(queue, range(6, 9))
    await asyncio.sleep(0)
    counter.let_through()
    await counter.served(2)
    counter.let_through()

    assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert counter.batches[1] == [6, 7, 8]


async def test_a_batch_is_bounded(counter):
    queue = GroupCommit(counter.commit, items_max=2)
    tasks = put_all(queue, range(5))
    for batch in range(1, 4):
        await counter.served(batch)
        counter.let_through()

    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40]
    assert counter.batches == [[0, 1], [2, 3], [4]]


async def test_as_many_calls_are_in_flight_as_allowed(counter):
    queue = GroupCommit(counter.commit, items_max=1, calls_max=2)
    tasks = put_all(queue, range(3))
    await counter.served(2)
    assert counter.batches == [[0], [1]]
    counter.let_through()
    await counter.served(3)
    counter.let_through()

    assert await asyncio.gather(*tasks) == [0, 10, 20]


async def test_what_a_batch_raises_is_raised_to_everybody_of_it_and_the_next_is_served(counter):
    queue = GroupCommit(counter.commit, items_max=2)
    counter.error = ZeroDivisionError()
    failed = put_all(queue, [1, 2])
    await counter.served(1)
    counter.let_through()
    assert [type(e) for e in await asyncio.gather(*failed, return_exceptions=True)] == [
        ZeroDivisionError
    ] * 2

    counter.error = None
    (task,) = put_all(queue, [3])
    await counter.served(2)
    counter.let_through()
    assert await task == 30


async def test_a_batch_with_an_answer_too_few_leaves_nobody_waiting(counter):
    queue = GroupCommit(counter.commit, items_max=2)
    counter.short_by = 1
    tasks = put_all(queue, [1, 2])
    await counter.served(1)
    counter.let_through()

    async with asyncio.timeout(5):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, AssertionError) for result in results)


async def test_a_caller_who_goes_away_takes_nothing_back(counter):
    queue = GroupCommit(counter.commit, items_max=10)
    first, second = put_all(queue, [1, 2])
    await counter.served(1)
    first.cancel()
    counter.let_through()

    assert await second == 20
    assert counter.batches == [[1, 2]]


async def test_whoever_waited_too_long_is_told_so_before_it_is_sent(counter):
    queue = GroupCommit(counter.commit, items_max=10)
    (sent,) = put_all(queue, [1])
    await counter.served(1)
    (waits,) = put_all(queue, [2])
    await asyncio.sleep(0)
    queue.shed(60.0, -1)
    assert not waits.done()
    queue.shed(-1.0, -1)

    assert await waits == -1
    counter.let_through()
    assert await sent == 10
    assert counter.batches == [[1]]


async def test_drain_waits_until_everybody_has_an_answer(counter):
    queue = GroupCommit(counter.commit, items_max=1)
    tasks = put_all(queue, [1, 2])
    await counter.served(1)
    draining = asyncio.create_task(queue.drain())
    counter.let_through()
    await counter.served(2)
    assert not draining.done()
    counter.let_through()

    await draining
    assert all(task.done() for task in tasks)
