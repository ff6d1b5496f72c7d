from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from loadtest.bench.cpu import _parse_stat
from loadtest.bench.generator import Generators
from loadtest.bench.measurement import CEILING, Measurement, Spread
from loadtest.bench.picture import draw
from loadtest.bench.report import EXIT_BROKEN, EXIT_VOID, judge, write_report
from loadtest.bench.rig import BenchOptions, Rig


def a_rig(*done: Measurement) -> Rig:
    options = BenchOptions(
        only=frozenset("ac"),
        seconds=1,
        durable_seconds=1,
        rounds=1,
        long_rounds=1,
        connections=1,
        api_processes=1,
        generators=1,
        burst_orders=1,
        callbacks=1,
        growth_orders=(1,),
    )
    return Rig(options, Generators(1), round=1, done=list(done))


def a_figure(variant: str, per_second: float, **more) -> Measurement:
    return Measurement(
        variant=variant,
        per_second=per_second,
        counted="placed",
        seconds=1.0,
        answers={"placed": 1},
        cpu_us={"api": 9.0, "generator": 3.0},
        cores={"other": 0.0},
        generator_cores=0.4,
        numbers={"p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0},
        round=1,
        **more,
    )


def test_a_run_leaves_a_table_a_document_and_a_picture(tmp_path: Path, capsys):
    rig = a_rig(a_figure(CEILING, 900), a_figure("a", 100), a_figure("c", 50, is_audited=True))
    write_report(rig, tmp_path, "make bench ARGS='--only a,c'")
    document = msgspec.json.decode((tmp_path / "bench.json").read_bytes())
    assert document["variants"]["c"]["per_second"]["median"] == 50
    assert document["targets"][0]["standing"] == "must reached"
    assert document["command"] in (tmp_path / "bench.svg").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "accepted ÷ bare" in printed
    assert "Audits: 1 made, 0 equations broken." in printed


def test_a_broken_audit_and_a_tired_generator_have_exit_codes_of_their_own():
    sound = a_rig(a_figure(CEILING, 900), a_figure("a", 100))
    broken = a_rig(a_figure("c", 100, broken=("I1 sale s: rows 2, accepted 3",)))
    void = a_rig(a_figure(CEILING, 100), a_figure("a", 10**6))
    assert [judge(rig) for rig in (sound, broken, void)] == [0, EXIT_BROKEN, EXIT_VOID]


def test_a_picture_is_well_formed_whatever_the_words():
    rates = {"a < b & c": Spread(5.0, 4.0, 6.0)}
    root = ET.fromstring(draw(rates, {"a < b & c": {"api": 1.0}}, "make bench ARGS='x & y'"))  # noqa: S314  our own
    assert "a < b & c" in [node.text for node in root]


def test_processor_time_is_read_behind_whatever_the_process_is_called():
    fields = " ".join(["S", "7", *["0"] * 9, "100", "50", "20", "10", "0"])
    stat = _parse_stat(f"42 (a) b ( c) {fields}")
    assert (stat.parent, stat.own, stat.reaped) == (7, 1.5, 0.3)
