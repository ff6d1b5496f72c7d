"""`doorbuster demo` and `doorbuster load`: the rush that a newcomer sees, and its verdict."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli.exits import Exit
from tests.journeys.service import RunningService, run_program


def told(finished) -> dict[str, Any]:
    """Read the report; when there is none, what was said on stderr is the reason."""
    assert finished.stdout, finished.stderr[-2_000:]
    return json.loads(finished.stdout)


@pytest.fixture
def demo_report(own_service: RunningService, tmp_path: Path) -> dict[str, Any]:
    """A rush of 600 on a data directory of its own."""
    finished = run_program(
        *("demo", "--shoppers", "600", "--stock", "50", "--exit", "--json"),
        *("--data-dir", str(own_service.data_dir)),
        cwd=tmp_path,
    )
    report = told(finished)
    assert finished.returncode == Exit.DONE, (report, finished.stderr[-2_000:])
    return report


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


def test_locust_plays_the_seckill_and_leaves_a_verdict(service: RunningService, tmp_path: Path):
    where = ("--data-dir", str(service.data_dir))
    finished = run_program(
        *("load", "run", "seckill", "--users", "120", "--stock", "30", "--spread", "2"),
        *("--out", "runs/1", "--json", *where),
        cwd=tmp_path,
    )
    report = told(finished)
    # A machine that runs three suites at once may be too slow for the lobby: VOID is honest.
    assert finished.returncode in {Exit.DONE, Exit.INCONCLUSIVE}, finished.stderr[-2_000:]
    assert bool(report["doubts"]) is (finished.returncode == Exit.INCONCLUSIVE)
    assert report["orders"]["accepted"] == report["orders"]["confirmed"] == 30
    assert json.loads((tmp_path / "runs/1/report.json").read_text()) == report
    assert not (tmp_path / "runs/1/plan.json").exists()

    again = run_program("load", "verify", "runs/1", "--json", *where, cwd=tmp_path)
    assert again.returncode == Exit.DONE, again.stderr[-2_000:]
    assert told(again)["counts"]["broken"] == 0


def test_a_target_that_is_away_exits_5(tmp_path: Path):
    finished = run_program("load", "run", "seckill", "--data-dir", "nowhere", cwd=tmp_path)
    assert finished.returncode == Exit.UNREACHABLE
    assert "nowhere" in finished.stderr
