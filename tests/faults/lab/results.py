"""
What came of each seed, one JSON line a seed, so that parts of a long run can be joined.

    SEED_RESULTS=runs/seeds.jsonl make test-faults SEEDS=0:50     appends fifty lines
    python -m tests.faults.lab.results runs/*.jsonl               sums up; exit 1 if one failed
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

RESULTS: Final = "SEED_RESULTS"  # the variable that names the file
WRONG_MAX: Final = 25  # sentences of one line


@dataclass(slots=True)
class SeedResult:
    """
    One seed, filled in as it is played.

    Attributes:
        plan: which faults were to strike.
        faults: those that bit, in order.
        may_lose: the disk itself was cut, so tickets may be lost.
        lost: accepted orders without a row; None: it did not come so far.
        oversold: units held beyond the stock; None likewise.
        recovery_seconds: of each bucket that got a new epoch.
        seconds: of the whole seed.
        wrong: what the judge found.
        verdict: passed, failed, or broken_off when something else went wrong.
    """

    seed: int
    plan: str
    faults: list[str] = field(default_factory=list)
    may_lose: bool = False
    accepted: int = 0
    lost: int | None = None
    oversold: int | None = None
    recovery_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    verdict: str = "broken_off"


@contextmanager
def noted(result: SeedResult) -> Iterator[None]:
    """Append a seed's line when the block ends, however it ends."""
    began = time.monotonic()
    try:
        yield
    finally:
        result.seconds = round(time.monotonic() - began, 1)
        if path := os.environ.get(RESULTS):
            del result.wrong[WRONG_MAX:]
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")


def read_results(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Read every line of every file; a seed that was played again counts as it was last."""
    lines = [line for path in paths for line in Path(path).read_text("utf-8").splitlines()]
    by_seed = {one["seed"]: one for one in map(json.loads, lines)}
    return [by_seed[seed] for seed in sorted(by_seed)]


def summary(results: Sequence[dict[str, Any]]) -> list[str]:
    """Sum up: what held, and how long it took."""
    failed = [one for one in results if one["verdict"] != "passed"]
    judged = [one for one in results if one["lost"] is not None]
    lost_unexcused = sum(one["lost"] for one in judged if not one["may_lose"])
    lost_with_disk = sum(one["lost"] for one in judged if one["may_lose"])
    told = [
        f"{len(results)} seeds, {len(results) - len(failed)} passed",
        (
            f"{sum(one['accepted'] for one in results)} orders accepted; "
            f"oversold {sum(one['oversold'] for one in judged)}, lost {lost_unexcused}, "
            f"lost where the disk was cut {lost_with_disk}"
        ),
        spread("recovery", [second for one in results for second in one["recovery_seconds"]]),
        spread("seed", [one["seconds"] for one in results]),
    ]
    return told + [f"seed {one['seed']} {one['verdict']}: {one['wrong'][:3]}" for one in failed]


def spread(what: str, seconds: Sequence[float]) -> str:
    """Say how many there were, the median and the worst."""
    if not seconds:
        return f"{what}: none"
    median, worst = statistics.median(seconds), max(seconds)
    return f"{what}: {len(seconds)}, median {median:.1f} s, worst {worst:.1f} s"


def main() -> int:
    """Sum up the files named on the command line."""
    results = read_results(sys.argv[1:])
    print("\n".join(summary(results)))  # noqa: T201  it is a command
    return int(not results or any(one["verdict"] != "passed" for one in results))


if __name__ == "__main__":
    sys.exit(main())
