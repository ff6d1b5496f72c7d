from enum import StrEnum, auto

import pytest

from app.kernel.errors import IllegalTransition
from app.kernel.machine import Machine


class DoorState(StrEnum):
    OPEN = auto()
    SHUT = auto()
    LOCKED = auto()
    BRICKED_UP = auto()


class DoorEvent(StrEnum):
    PUSHED = auto()
    PULLED = auto()
    KEY_TURNED = auto()
    WALLED = auto()


DOOR = Machine(
    name="door",
    start=DoorState.SHUT,
    moves={
        (DoorState.OPEN, DoorEvent.PUSHED): DoorState.SHUT,
        (DoorState.SHUT, DoorEvent.PULLED): DoorState.OPEN,
        (DoorState.SHUT, DoorEvent.KEY_TURNED): DoorState.LOCKED,
        (DoorState.LOCKED, DoorEvent.KEY_TURNED): DoorState.SHUT,
        (DoorState.OPEN, DoorEvent.WALLED): DoorState.BRICKED_UP,
        (DoorState.SHUT, DoorEvent.WALLED): DoorState.BRICKED_UP,
    },
)


@pytest.mark.parametrize("state", DoorState)
@pytest.mark.parametrize("event", DoorEvent)
def test_every_pair_either_moves_as_the_table_says_or_is_refused(state, event):
    if (state, event) in DOOR.moves:
        assert DOOR.after(state, event) is DOOR.moves[state, event]
        return
    with pytest.raises(IllegalTransition) as refused:
        DOOR.after(state, event)
    assert refused.value.fields == {"machine": "door", "state": state, "event": event}


@pytest.mark.parametrize("event", DoorEvent)
def test_the_sources_of_an_event_are_the_states_it_may_leave(event):
    assert DOOR.sources(event) == [
        str(state) for state in DoorState if (state, event) in DOOR.moves
    ]


def test_sources_are_plain_text_that_a_statement_can_carry():
    assert [type(source) for source in DOOR.sources(DoorEvent.WALLED)] == [str, str]


def test_a_final_state_is_one_that_nothing_leaves():
    assert DOOR.finals() == [DoorState.BRICKED_UP]
