"""Processor time by process, from /proc: who has the microseconds of a request."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuReading:
    """
    Processor seconds used so far.

    Attributes:
        used: by group of processes, their ended children included.
        busy: by the whole machine.
    """

    used: Mapping[str, float]
    busy: float

    def since(self, earlier: "CpuReading") -> "CpuReading":
        """Give what was used between two readings."""
        used = {name: max(0.0, self.used[name] - earlier.used[name]) for name in self.used}
        return CpuReading(used, self.busy - earlier.busy)


def read_cpu(groups: Mapping[str, Iterable[int]]) -> CpuReading:
    """
    Read what groups of processes have used.

    Args:
        groups: name -> process ids; live children of a process count with it.
    """
    stats = _read_all()
    used = {}
    for name, pids in groups.items():
        wanted = set(pids)
        used[name] = sum(
            stat.own + (stat.reaped if pid in wanted else 0.0)
            for pid, stat in stats.items()
            if pid in wanted or stat.parent in wanted
        )
    return CpuReading(used, _machine_busy())


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    own: float
    reaped: float


def _read_all() -> dict[int, _Stat]:
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            found[int(folder.name)] = _parse_stat((folder / "stat").read_text())
        except OSError:  # it has ended meanwhile
            continue
    return found


def _parse_stat(text: str) -> _Stat:
    """Read a line of proc(5) `stat`; the name may hold spaces and brackets, so split after it."""
    fields = text[text.rindex(")") + 2 :].split()
    user, system, child_user, child_system = (int(field) for field in fields[11:15])
    return _Stat(
        parent=int(fields[1]),
        own=(user + system) / _TICKS_PER_SECOND,
        reaped=(child_user + child_system) / _TICKS_PER_SECOND,
    )


def _machine_busy() -> float:
    """Sum everything but idle and waiting for a disk (the fourth and fifth column)."""
    columns = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(columns) - columns[3] - columns[4]) / _TICKS_PER_SECOND
