"""
Invariants as equations: what the audit says, and what its exit code is made of.

An equation names both sides in words and in numbers, so that whoever reads a
broken one sees at once by how much and where. The invariants and their letters
are those of docs/GUARANTEES.md; each stage judges its own, and later stages are
never asked by earlier ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

EXAMPLES_MAX: Final = 5  # enough to begin the search; the rest is usually more of the same


class Relation(StrEnum):
    """How the left side should stand to the right one."""

    EQUAL = "="
    AT_MOST = "<="


class Doubt(StrEnum):
    """Why an equation could not be judged."""

    IN_MOTION = "in motion"
    """It holds at rest only and the stores are busy; its live form was judged instead."""

    RECOVERING = "recovering"
    """Its bucket is being rebuilt; ask again when it is open."""

    UNREACHABLE = "unreachable"
    """A store did not answer."""


class Verdict(StrEnum):
    """What a whole audit comes to."""

    HOLDS = "holds"
    BROKEN = "broken"
    UNREACHABLE = "unreachable"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """
    One invariant of one subject, with both sides.

    Attributes:
        invariant: its letter and number, "I1".
        subject: what it was judged for, "sale spring / bucket 0".
        left, right: the sides in words.
        left_value, right_value: the sides in numbers; None when they were not read.
        holds: None when it could not be judged; `doubt` says why.
        note: one sentence on the doubt, for a person.
        counter_examples: at most EXAMPLES_MAX of what breaks it.
    """

    invariant: str
    subject: str
    left: str
    left_value: int | None
    relation: Relation
    right: str
    right_value: int | None
    holds: bool | None
    doubt: Doubt | None = None
    note: str = ""
    counter_examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert (self.holds is None) == (self.doubt is not None)
        assert len(self.counter_examples) <= EXAMPLES_MAX


def equal(  # noqa: PLR0913  an equation has this many parts
    invariant: str,
    subject: str,
    left: tuple[str, int],
    right: tuple[str, int],
    *,
    broken: int = 0,
    counter_examples: Sequence[str] = (),
) -> Equation:
    """
    Judge that two counted sides are equal.

    Args:
        invariant: see Equation.
        subject: see Equation.
        left: words and number.
        right: words and number.
        broken: single cases that contradict it; sums may agree by accident.
        counter_examples: some of those cases.
    """
    return _judged(
        Relation.EQUAL,
        (invariant, subject),
        left,
        right,
        holds=left[1] == right[1] and not broken,
        counter_examples=counter_examples,
    )


def at_most(
    invariant: str,
    subject: str,
    left: tuple[str, int],
    right: tuple[str, int],
    *,
    counter_examples: Sequence[str] = (),
) -> Equation:
    """Judge that the left side does not exceed the right one."""
    return _judged(
        Relation.AT_MOST,
        (invariant, subject),
        left,
        right,
        holds=left[1] <= right[1],
        counter_examples=counter_examples,
    )


def none_of(
    invariant: str,
    subject: str,
    what: str,
    count: int,
    counter_examples: Sequence[str] = (),
) -> Equation:
    """Judge that there is nothing of a kind that must not be."""
    return equal(invariant, subject, (what, count), ("0", 0), counter_examples=counter_examples)


def unjudged(
    invariant: str,
    subject: str,
    sides: tuple[str, Relation, str],
    doubt: Doubt,
    note: str,
) -> Equation:
    """Say that an equation could not be judged, and why."""
    left, relation, right = sides
    return Equation(
        invariant=invariant,
        subject=subject,
        left=left,
        left_value=None,
        relation=relation,
        right=right,
        right_value=None,
        holds=None,
        doubt=doubt,
        note=note,
    )


def verdict_of(equations: Iterable[Equation]) -> Verdict:
    """
    Sum up an audit.

    A break outweighs everything: it is true whatever else could not be read. An
    equation in motion does not count, because its live form was judged.
    """
    seen = list(equations)
    doubts = {equation.doubt for equation in seen}
    if any(equation.holds is False for equation in seen):
        return Verdict.BROKEN
    if Doubt.UNREACHABLE in doubts:
        return Verdict.UNREACHABLE
    if Doubt.RECOVERING in doubts:
        return Verdict.INCONCLUSIVE
    return Verdict.HOLDS


def equations_as_json(equations: Sequence[Equation]) -> dict[str, Any]:
    """
    Turn an audit into one JSON document, for `--json` and GET /admin/v1/audit.

    Returns:
        verdict, counts by outcome, and every equation.
    """
    return {
        "verdict": verdict_of(equations),
        "counts": {
            "judged": sum(equation.holds is not None for equation in equations),
            "broken": sum(equation.holds is False for equation in equations),
            **{
                doubt.name.lower(): sum(equation.doubt is doubt for equation in equations)
                for doubt in Doubt
            },
        },
        "equations": [_as_json(equation) for equation in equations],
    }


def _as_json(equation: Equation) -> dict[str, Any]:
    return {
        "invariant": equation.invariant,
        "subject": equation.subject,
        "left": equation.left,
        "left_value": equation.left_value,
        "relation": equation.relation,
        "right": equation.right,
        "right_value": equation.right_value,
        "holds": equation.holds,
        "doubt": equation.doubt,
        "note": equation.note,
        "counter_examples": list(equation.counter_examples),
    }


def _judged(  # noqa: PLR0913  an equation has this many parts
    relation: Relation,
    about: tuple[str, str],
    left: tuple[str, int],
    right: tuple[str, int],
    *,
    holds: bool,
    counter_examples: Sequence[str],
) -> Equation:
    return Equation(
        invariant=about[0],
        subject=about[1],
        left=left[0],
        left_value=left[1],
        relation=relation,
        right=right[0],
        right_value=right[1],
        holds=holds,
        counter_examples=tuple(counter_examples[:EXAMPLES_MAX]),
    )
