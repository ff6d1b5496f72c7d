"""What `doorbuster doctor` finds: one line each, with a fix where there is one."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from app.cli.exits import Exit


class Health(StrEnum):
    """How something is."""

    OK = "OK"
    WARN = "WARN"  # it will do, but not well, or not for everything
    FAIL = "FAIL"  # Doorbuster must not run like this


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was looked at.

    Attributes:
        what: was looked at.
        health: how it is.
        found: what was seen, in a few words.
        fix: what to do about it; empty when nothing is to be done.
        is_away: it is needed and does not answer.
    """

    what: str
    health: Health
    found: str
    fix: str = ""
    is_away: bool = False

    def __post_init__(self) -> None:
        assert (self.health is Health.OK) == (not self.fix), "a fault without a fix helps nobody"


def well(what: str, found: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(what, Health.OK, found)


def away(what: str, found: str, fix: str) -> Finding:
    """Say that something that is needed does not answer."""
    return Finding(what, Health.FAIL, found, fix, is_away=True)


def exit_of(findings: Iterable[Finding]) -> Exit:
    """Sum up: a store that is away outweighs one that is set up wrongly."""
    faults = [finding for finding in findings if finding.health is Health.FAIL]
    if any(finding.is_away for finding in faults):
        return Exit.UNREACHABLE
    return Exit.FAILED if faults else Exit.DONE
