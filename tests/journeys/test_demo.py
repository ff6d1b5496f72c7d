"""`doorbuster demo`: the rush that a newcomer sees, and its verdict."""

from pathlib import Path
from typing import Any

import pytest

from app.cli.exits import Exit
from tests.journeys.finished import run
from tests.journeys.service import RunningService


@pytest.fixture
def demo_report(own_service: RunningService, tmp_path: Path) -> dict[str, Any]:
    """A rush of 600 on a data directory of its own."""
    finished = run(
        *("demo", "--shoppers", "600", "--stock", "50", "--exit", "--json"),
        *("--data-dir", str(own_service.data_dir)),
        cwd=tmp_path,
    )
    assert finished.exit == Exit.DONE, finished
    return finished.report


def test_a_small_rush_passes(demo_report):
    orders = demo_report["orders"]
    assert demo_report["grade"] == "PASS"
    assert orders["sold"] == orders["stock"] == 55
    assert orders["oversold"] == orders["lost"] == 0
    assert orders["refunded"] >= 1
    assert demo_report["sold_again"] >= 1
    assert demo_report["clicks"]["sold_out"] >= 545
    assert demo_report["clicks"]["duplicate"] >= 1
    assert demo_report["clicks"]["error"] == 0
    assert demo_report["figures"]["click_to_ticket"]["count"] >= 1
    assert {equation["invariant"] for equation in demo_report["equations"]} >= {
        *("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I9", "I10", "I11", "I12", "I13", "I14"),
        *("I15", "I17", "I18", "I19", "I20", "I21"),
    }
