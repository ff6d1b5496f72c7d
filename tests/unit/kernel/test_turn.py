"""What comes within one turn of the loop is served together, in order, in the next."""

import asyncio

from app.kernel.turn import Turn


async def test_items_of_one_turn_are_served_together_and_in_order():
    served: list[list[int]] = []
    turn: Turn[int] = Turn(served.append)

    turn.add(1)
    turn.add(2)
    assert served == [], "nothing is served while others may still come"
    await asyncio.sleep(0)

    assert served == [[1, 2]]


async def test_what_comes_while_a_turn_is_served_has_a_turn_of_its_own():
    served: list[list[int]] = []

    def serve(items: list[int]) -> None:
        served.append(items)
        if items == [1]:
            turn.add(2)

    turn: Turn[int] = Turn(serve)
    turn.add(1)
    await asyncio.sleep(0)
    assert served == [[1]]
    await asyncio.sleep(0)

    assert served == [[1], [2]]
