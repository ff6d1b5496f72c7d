"""State machines as tables: one per thing, in the thing's own pure module."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from app.kernel.errors import IllegalTransition

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Machine(Generic[State, Event]):
    """
    Which event leads from which state to which.

    A pair that is not in `moves` is refused. The guards of SQL updates, the
    picture in docs/STATES.md and the exhaustive test all read this table.
    """

    name: str
    start: State
    moves: Mapping[tuple[State, Event], State]

    def after(self, state: State, event: Event) -> State:
        """Return the state that `event` leads to; raise IllegalTransition if none."""
        target = self.moves.get((state, event))
        if target is None:
            raise IllegalTransition(machine=self.name, state=state, event=event)
        return target

    def sources(self, event: Event) -> list[str]:
        """Return the states that `event` may leave: the guard of its UPDATE."""
        return [str(state) for (state, moved) in self.moves if moved == event]

    def finals(self) -> list[State]:
        """Return the states that are reached and never left, in the enum's order."""
        left = {state for (state, _), target in self.moves.items() if target != state}
        reached = {self.start, *self.moves.values()}
        return [state for state in type(self.start) if state in reached - left]
