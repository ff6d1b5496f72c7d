"""
Whether a payment may be opened, and by which rule it may not; pure.

Refusals come before holds. An operator's release lifts a hold, never a refusal.

Source:
    docs/PAYMENTS.md §4.9.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.payments.settings import RiskSettings


class RiskSubject(StrEnum):
    """Who or what is counted and may be blocked (the SQL type risk_subject)."""

    SHOPPER = "shopper"
    DEVICE = "device"
    ADDRESS = "address"


class BlockEffect(StrEnum):
    """What a block does to a payment (the SQL type block_effect)."""

    REFUSE = "refuse"
    HOLD = "hold"


class HoldState(StrEnum):
    """Where an order's hold stands (the SQL type hold_state)."""

    HELD = "held"
    RELEASED = "released"
    REJECTED = "rejected"


class Verdict(StrEnum):
    """What becomes of a start."""

    ALLOW = "allow"
    HOLD = "hold"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, and the name of the rule that operators read."""

    verdict: Verdict
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskFacts:
    """All that the rules look at."""

    amount_minor: int
    over: frozenset[RiskSubject] = frozenset()  # who has started too often
    blocks: Mapping[RiskSubject, BlockEffect] = field(default_factory=dict)
    hold: HoldState | None = None  # of this order


ALLOWED = Decision(Verdict.ALLOW)


def decide(facts: RiskFacts, settings: RiskSettings) -> Decision:
    """Decide about one start; the first rule that applies counts."""
    refused = _refusal(facts, settings)
    if refused is not None:
        return Decision(Verdict.REFUSE, refused)
    if facts.hold is HoldState.RELEASED:
        return ALLOWED
    held = _hold(facts, settings)
    return ALLOWED if held is None else Decision(Verdict.HOLD, held)


def _refusal(facts: RiskFacts, settings: RiskSettings) -> str | None:
    if facts.hold is HoldState.REJECTED:
        return "rejected_by_operator"
    for subject in RiskSubject:
        if facts.blocks.get(subject) is BlockEffect.REFUSE:
            return f"{subject}_blocked"
    if 0 < settings.amount_minor_max < facts.amount_minor:
        return "amount_over_limit"
    for subject in RiskSubject:
        if subject in facts.over:
            return f"{subject}_too_often"
    return None


def _hold(facts: RiskFacts, settings: RiskSettings) -> str | None:
    if facts.hold is HoldState.HELD:
        return "held_before"
    for subject in RiskSubject:
        if facts.blocks.get(subject) is BlockEffect.HOLD:
            return f"{subject}_watched"
    if 0 < settings.hold_from_minor <= facts.amount_minor:
        return "amount_for_review"
    return None
