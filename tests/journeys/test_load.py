"""`doorbuster load`: Locust plays, and a verdict is left."""

import json
from pathlib import Path

from app.cli.exits import Exit
from tests.journeys.finished import run
from tests.journeys.service import RunningService


def test_locust_plays_the_seckill_and_leaves_a_verdict(service: RunningService, tmp_path: Path):
    where = ("--data-dir", str(service.data_dir))
    finished = run(
        *("load", "run", "seckill", "--users", "120", "--stock", "30", "--spread", "2"),
        *("--out", "runs/1", "--json", *where),
        cwd=tmp_path,
    )
    report = finished.report
    # A machine that runs three suites at once may be too slow for the lobby: VOID is honest.
    assert finished.exit in {Exit.DONE, Exit.INCONCLUSIVE}, finished
    assert bool(report["doubts"]) is (finished.exit == Exit.INCONCLUSIVE)
    assert report["orders"]["accepted"] == report["orders"]["confirmed"] == 30
    assert json.loads((tmp_path / "runs/1/report.json").read_text()) == report
    assert not (tmp_path / "runs/1/plan.json").exists()

    again = run("load", "verify", "runs/1", "--json", *where, cwd=tmp_path)
    assert again.exit == Exit.DONE, again
    assert again.report["counts"]["broken"] == 0


def test_locust_buys_in_groups(service: RunningService, tmp_path: Path):
    finished = run(
        *("load", "run", "group_buy", "--users", "60", "--stock", "24", "--spread", "2"),
        *("--window", "10", "--out", "runs/1", "--json", "--data-dir", str(service.data_dir)),
        cwd=tmp_path,
    )
    report = finished.report
    assert finished.exit in {Exit.DONE, Exit.INCONCLUSIVE}, finished
    assert report["clicks"]["no_seat"] > 0, "who found a group full tried another"
    assert report["clicks"]["error"] == 0
    orders = report["orders"]
    assert 3 <= orders["paid"] <= 24
    assert orders["paid"] % 3 == 0, "whole groups alone keep their goods"
    assert orders["closed"] > 0, "who cancelled or left"
    judged = [one for one in report["equations"] if one["left"] == "groups with a paid order"]
    assert [(one["left_value"], one["holds"]) for one in judged] == [(orders["paid"] // 3, True)]


def test_a_target_that_is_away_exits_5(tmp_path: Path):
    finished = run("load", "run", "seckill", "--data-dir", "nowhere", cwd=tmp_path)
    assert finished.exit == Exit.UNREACHABLE
    assert "nowhere" in finished.said
