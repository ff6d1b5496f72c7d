import stat

import pytest

from loadtest.answers import Outcome
from loadtest.history import Click, History, SaleTerms
from loadtest.lab import find_doubts
from loadtest.lobby import GeneratorNotes, LobbyPlan, read_plan, write_plan
from loadtest.plan import plan_visits

ON_TIME = Click("s", "ann", "k", 10.0, 10.001, 10.1, Outcome.WON, "A", "", waited=False, status=202)
LATE = ON_TIME._replace(sent_at=10.5)
CALM = GeneratorNotes(cores=0.4, missed=0)


@pytest.mark.parametrize(
    ("clicks", "notes", "doubt"),
    [
        ([ON_TIME] * 60, CALM, None),
        ([ON_TIME] * 49, CALM, "only 49 clicks"),
        ([ON_TIME] * 60, GeneratorNotes(cores=0.95, missed=0), "0.95 of its one core"),
        ([ON_TIME] * 60, GeneratorNotes(cores=0.4, missed=2), "2 shoppers"),
        ([ON_TIME] * 60 + [LATE] * 2, CALM, "clicks left 500 ms (p99)"),
        ([ON_TIME] * 60 + [LATE._replace(planned_at=12.0)] * 9, CALM, None),
    ],
)
def test_a_run_that_measured_its_generator_is_in_doubt(clicks, notes, doubt):
    found = find_doubts(History(clicks=clicks), notes, 10.0, 1.0)
    assert len(found) == (doubt is not None)
    assert doubt is None or doubt in found[0]


def test_a_plan_reaches_locust_whole_and_unseen_by_others(tmp_path):
    plan = LobbyPlan(
        scenario="seckill",
        gateway_url="http://gateway",
        release_at=12.5,
        sales=[SaleTerms("s", 1, 1, 5, "CNY")],
        visits=plan_visits(["s"], 30, run="r1", seed=1, spread_seconds=1.0),
        tokens={"r1-0": "secret"},
        history_path="history",
        generator_path="generator",
    )
    path = tmp_path / "plan.json"
    write_plan(path, plan)
    assert read_plan(path) == plan
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
