import asyncio

import pytest

from tests.waiting import eventually


async def test_the_first_true_answer_is_returned():
    answers = iter([0, "", None, 7])

    assert await eventually(lambda: next(answers)) == 7


async def test_a_condition_may_be_awaited():
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, event.set)

    async def is_set() -> bool:
        return event.is_set()

    assert await eventually(is_set)


async def test_what_never_happens_is_told_with_the_last_answer():
    with pytest.raises(AssertionError, match=r"within 0.03 s; the last answer was \[\]"):
        await eventually(list, within_seconds=0.03)


async def test_an_answer_that_hangs_is_cut_off():
    async def hang() -> bool:
        return await asyncio.get_running_loop().create_future()

    with pytest.raises(AssertionError, match="within"):
        await eventually(hang, within_seconds=0.03)
