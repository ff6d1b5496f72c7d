"""
Judge that the books tell what happened: I15 between the shards and the ledger.

The shards know first, the ledger later, and nothing is ever taken back. So:

- Live: what the ledger has posted is at most what the shards, read afterwards, know.
- Exact: ledger, shards, ledger again; if nothing was posted in between, then what
  was posted plus the facts that still wait is exactly what the shards know. A fact
  may wait although it is posted (the poster fell between two commits), so each is
  looked up. When postings never pause, the live form stands in.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.kernel.equation import EXAMPLES_MAX, Doubt, Equation, Relation, at_most, equal, unjudged
from app.orders.audit_store import Row
from app.settlement import audit_store as store
from app.settlement.chart import provider_receivable
from app.storage.shards import Database, Shards

TRIES_MAX: Final = 5  # to meet the books between two batches
SIDES: Final = ("captured", "refunded")
NOTHING: Final[Mapping[str, int]] = {"captured": 0, "refunded": 0}


@dataclass(frozen=True, slots=True)
class _Reading:
    """The ledger, the shards, and the ledger again; by code of the receivable."""

    before: Mapping[str, Row]
    known: Mapping[str, Counter[str]]
    waiting: Mapping[str, Counter[str]]  # facts that wait and are not posted
    after: Mapping[str, Row]

    @property
    def is_still(self) -> bool:
        return self.before == self.after


async def audit_postings(shards: Shards, ledger: Database) -> list[Equation]:
    """
    Judge I15: everything captured and refunded is posted, or waits to be.

    Raises:
        ShardUnavailable, LedgerUnavailable: a database does not answer.
    """
    for _ in range(TRIES_MAX):
        reading = await _read(shards, ledger)
        if reading.is_still:
            break
    codes = sorted(reading.before.keys() | reading.known.keys())
    equations = [equation for code in codes for equation in _judge(reading, code)]
    if any(equation.holds is False for equation in equations):
        return await _with_parked(shards, equations)
    return equations


async def facts_wait(shards: Shards) -> bool:
    """Say whether any shard has money facts that are not posted yet."""
    for shard in shards.all:
        _, waiting = await store.read_money(shard)
        if waiting:
            return True
    return False


async def _read(shards: Shards, ledger: Database) -> _Reading:
    before = await store.read_posted(ledger)
    known: dict[str, Counter[str]] = {}
    facts: list[Row] = []
    for shard in shards.all:
        money, waiting = await store.read_money(shard)
        facts += waiting
        for row in money:
            sums = {side: row[side] for side in SIDES}
            known.setdefault(_code(row), Counter()).update(sums)
    posted = await store.find_posted(ledger, facts)
    after = await store.read_posted(ledger)
    return _Reading(before, known, _sum_waiting(facts, posted), after)


def _sum_waiting(facts: Sequence[Row], posted: set[tuple[str, str]]) -> dict[str, Counter[str]]:
    sums: dict[str, Counter[str]] = {}
    for fact in facts:
        if (fact["kind"], fact["reference"]) not in posted:
            side = "captured" if fact["kind"] in store.CAPTURES else "refunded"
            sums.setdefault(_code(fact), Counter())[side] += fact["amount"]
    return sums


def _code(row: Row) -> str:
    return provider_receivable(row["provider"], row["currency"]).code


def _judge(reading: _Reading, code: str) -> list[Equation]:
    equations = []
    for side in SIDES:
        posted = reading.before.get(code, NOTHING)[side]
        known = reading.known.get(code, Counter())[side]
        waiting = reading.waiting.get(code, Counter())[side]
        right = (f"{side} on the shards", known)
        equations.append(at_most("I15", code, (f"{side} as posted", posted), right))
        if reading.is_still:
            left = (f"{side} as posted {posted} + waiting {waiting}", posted + waiting)
            equations.append(equal("I15", code, left, right))
        else:
            sides = (f"{side} as posted + waiting", Relation.EQUAL, right[0])
            note = "facts were posted while it was read"
            equations.append(unjudged("I15", code, sides, Doubt.IN_MOTION, note))
    return equations


async def _with_parked(shards: Shards, equations: Sequence[Equation]) -> list[Equation]:
    """Name the facts that were set aside: they are why a sum is short."""
    parked: list[str] = []
    for shard in shards.all:
        parked += await store.read_parked(shard, EXAMPLES_MAX)
    return [
        replace(equation, counter_examples=tuple(parked[:EXAMPLES_MAX]))
        if equation.holds is False
        else equation
        for equation in equations
    ]
