"""The report of a run, as values and as one JSON document."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from os import cpu_count
from typing import Any

import msgspec

from app.kernel.equation import Equation
from loadtest.figures import Figures
from loadtest.verdict import Grade, OrderOutcome, Threshold


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran, and with what."""

    cores: int
    system: str
    python: str
    doorbuster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    Everything that a run found out.

    Attributes:
        run: its id.
        command: how to run it again.
        clicks: answers by class.
        troubles: by code, what was neither accepted nor finally refused.
        generator_cores: how much of a core the generator itself used during the rush.
        wall_seconds: of the whole run, without the start of the service.
        doubts: why it means nothing, if so.
    """

    grade: Grade
    run: str
    command: str
    orders: OrderOutcome
    clicks: dict[str, int]
    troubles: dict[str, int]
    sold_again: int
    figures: Figures
    generator_cores: float
    wall_seconds: float
    thresholds: tuple[Threshold, ...]
    doubts: tuple[str, ...]
    equations: tuple[Equation, ...]
    machine: Machine


def this_machine() -> Machine:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Machine(cpu_count() or 1, system, platform.python_version(), version("doorbuster"))


def report_as_json(report: Report) -> dict[str, Any]:
    """Turn a report into plain values for one JSON document."""
    plain: dict[str, Any] = msgspec.to_builtins(report)
    for threshold, row in zip(report.thresholds, plain["thresholds"], strict=True):
        row["is_met"] = threshold.is_met
    plain["orders"] |= {
        "stock": report.orders.stock,
        "sold": report.orders.sold,
        "oversold": report.orders.oversold,
    }
    return plain
