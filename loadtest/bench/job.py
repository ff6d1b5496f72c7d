"""What a generator is told to do, and what it brings back: plain values, sent between processes."""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from loadtest.bench.callback_deck import CallbackDeck
from loadtest.bench.deck import Deck

SLOTS_PER_SECOND: Final = 10


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Every connection sends its next click when the last one is answered."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """
    Every connection is a shopper with a timetable, who clicks once at a time and gives up.

    An instant that passes while the shopper still waits is left out.

    Attributes:
        interval_seconds: between two clicks of a shopper.
        patience_seconds: from the planned instant until they give up and come back anew.
        stay: how many of the shoppers stay when the others leave; 0: all.
        surge_seconds: when they leave, from the start of the window.
    """

    interval_seconds: float
    patience_seconds: float = 1.0
    stay: int = 0
    surge_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Clicks arrive at random, so many a second, whatever became of the earlier ones."""

    per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    One run of load.

    Attributes:
        port: of localhost.
        connections: open at once.
        warm_seconds: before the measured window.
        seconds: of the window; 0: until the deck is played out, all of it measured.
    """

    port: int
    connections: int
    pace: ClosedLoop | Timetable | OpenLoop
    deck: Deck | CallbackDeck
    warm_seconds: float = 0.0
    seconds: float = 0.0

    def part(self, index: int, parts: int) -> "Job":
        """Give one of several generators its share."""
        pace = self.pace
        if isinstance(pace, OpenLoop):
            pace = OpenLoop(pace.per_second / parts)
        elif isinstance(pace, Timetable):
            pace = replace(pace, stay=pace.stay // parts)
        connections = self.connections // parts
        return replace(self, connections=connections, pace=pace, deck=self.deck.part(index, parts))


@dataclass(slots=True)
class Tally:
    """
    What a generator saw.

    Attributes:
        totals: answers by name, the warm-up and the last ones under way included.
        slots: answers of the window by name and tenth of a second.
        waits_ms: from the planned instant to the answer, by name, in the window.
        sent_late_ms: from the planned instant to the send.
        seconds: how long the window was.
        is_played_out: the deck was empty before the window was over.
    """

    totals: Counter[str] = field(default_factory=Counter)
    slots: dict[str, Counter[int]] = field(default_factory=dict)
    waits_ms: dict[str, "array[float]"] = field(default_factory=dict)
    sent_late_ms: "array[float]" = field(default_factory=lambda: array("f"))
    seconds: float = 0.0
    is_played_out: bool = False

    def count(self, name: str) -> int:
        """Count the answers of that name in the window."""
        return len(self.waits_ms.get(name, ()))

    def per_second(self, name: str, begin: float, end: float) -> float:
        """Give the rate of one answer in a part of the window, in seconds from its start."""
        first, last = round(begin * SLOTS_PER_SECOND), round(end * SLOTS_PER_SECOND)
        slots = self.slots.get(name, Counter())
        return sum(slots[slot] for slot in range(first, last)) / (end - begin)


def merge(tallies: Iterable[Tally]) -> Tally:
    """Put the tallies of several generators together."""
    whole = Tally()
    for tally in tallies:
        whole.totals.update(tally.totals)
        for name, slots in tally.slots.items():
            whole.slots.setdefault(name, Counter()).update(slots)
        for name, waits in tally.waits_ms.items():
            whole.waits_ms.setdefault(name, array("f")).extend(waits)
        whole.sent_late_ms.extend(tally.sent_late_ms)
        whole.seconds = max(whole.seconds, tally.seconds)
        whole.is_played_out |= tally.is_played_out
    return whole
