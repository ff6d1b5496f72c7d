"""What a command's exit code means (docs/INTERFACES.md §5)."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; 2 is click's own for wrong usage."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BROKEN = 3
    INCONCLUSIVE = 4
    UNREACHABLE = 5
    INTERRUPTED = 130
