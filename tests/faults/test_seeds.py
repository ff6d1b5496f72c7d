"""Mixed faults, drawn from a seed: sell while everything breaks, then judge."""

import json
from pathlib import Path

import pytest

from tests.faults.lab.nemesis import plan_of, play
from tests.faults.lab.results import RESULTS, SeedResult, noted, read_results, summary


async def test_a_seed_of_mixed_faults_breaks_no_promise(site, seed):
    result = SeedResult(seed, str(plan_of(seed)))
    site.note(f"plan: {result.plan}")
    with noted(result):
        verdict = await play(site, seed, result)
        verdict.require()
    site.note(f"took {result.seconds} s")


def test_the_plan_of_a_seed_is_always_the_same():
    assert [str(plan_of(seed)) for seed in range(50)] == [str(plan_of(seed)) for seed in range(50)]
    assert len({str(plan_of(seed)) for seed in range(50)}) == 50


def test_parts_of_a_run_are_joined_and_the_last_word_on_a_seed_counts(tmp_path, monkeypatch):
    first, second = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    whole = {"accepted": 60, "lost": 0, "oversold": 0, "verdict": "passed"}
    for path, seed, told in (
        (first, 1, {**whole, "recovery_seconds": [2.0, 4.0]}),
        (first, 2, {"verdict": "failed", "wrong": ["a ticket"]}),
        (second, 2, {**whole, "recovery_seconds": [9.0]}),
        (second, 3, {**whole, "may_lose": True, "lost": 4}),
    ):
        monkeypatch.setenv(RESULTS, path)
        with noted(SeedResult(seed, "a plan", **told)):
            pass
    lines = Path(first).read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [1, 2]
    assert "seed 2 failed: ['a ticket']" in summary(read_results([first]))
    assert summary(read_results([first, second]))[:3] == [
        "3 seeds, 3 passed",
        "180 orders accepted; oversold 0, lost 0, lost where the disk was cut 4",
        "recovery: 3, median 4.0 s, worst 9.0 s",
    ]


def test_a_seed_that_is_broken_off_has_its_line(tmp_path, monkeypatch):
    monkeypatch.setenv(RESULTS, str(tmp_path / "r.jsonl"))
    with pytest.raises(TimeoutError), noted(SeedResult(7, "a plan")):
        raise TimeoutError
    (line,) = read_results([str(tmp_path / "r.jsonl")])
    assert (line["seed"], line["verdict"], line["lost"]) == (7, "broken_off", None)
