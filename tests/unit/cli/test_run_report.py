"""How the verdict of a load run reads."""

import json

from app.cli.run_report import print_report
from app.kernel.equation import equal
from loadtest.figures import Figures, Latency
from loadtest.report import Machine, Report, report_as_json
from loadtest.verdict import Grade, OrderOutcome, SaleOutcome, Threshold

NONE = Latency(0, None, None, None)
TICKET = Latency(90, 1.2345, 45.678, 50.0)
BOOKS = equal("I14", "ledger CNY", ("debits", 8_880), ("credits", 8_880))
BREAK = equal("I4", "sale s", ("held", 2), ("stock", 1), counter_examples=["order A"])


def a_report(grade: Grade = Grade.BROKEN) -> Report:
    return Report(
        grade=grade,
        run="r1",
        command="doorbuster demo --exit",
        orders=OrderOutcome(
            accepted=2,
            confirmed=2,
            rejected=0,
            paid=2,
            closed=0,
            refunded=0,
            lost=0,
            sales=(SaleOutcome("s", 1, 2, 2),),
        ),
        clicks={"won": 2, "sold_out": 98},
        troubles={"overloaded": 3},
        sold_again=1,
        figures=Figures(
            accepted_per_second=1_234.5,
            durable_per_second=0.0,
            answered_per_second=99.0,
            click_to_ticket=TICKET,
            sent_to_ticket=TICKET,
            click_to_answer=NONE,
            sent_to_answer=NONE,
            click_to_row=NONE,
            sent_to_row=NONE,
            drain_seconds=0.25,
        ),
        generator_cores=0.5,
        wall_seconds=31.0,
        thresholds=(Threshold("drain", 11.0, 10.0, "s"),),
        doubts=("only 2 clicks",),
        equations=(BOOKS, BREAK),
        machine=Machine(2, "Linux", "3.11.7", "0.1.0"),
    )


def test_the_page_says_what_was_sold_and_what_is_wrong(capsys):
    print_report(a_report())
    told = " ".join(capsys.readouterr().out.split())
    for part in (
        "BROKEN",
        "sold s 2 of 1",
        "oversold 1",
        "ledger balanced (CNY 8,880)",
        "accepted/s 1,230",
        "p50 1.23, p99 45.7 ms (from the send: p50 1.23, p99 45.7 ms; n=90)",
        "click → row none measured",
        "drain 0.250 s",
        "threshold missed: drain 11.0 s, at most 10",
        "in doubt: only 2 clicks",
        "held 2 = stock 1",
        "order A",
        "again: doorbuster demo --exit",
    ):
        assert part in told


def test_the_document_has_what_the_page_has():
    document = json.loads(json.dumps(report_as_json(a_report())))
    assert document["grade"] == "BROKEN"
    assert document["orders"]["oversold"] == 1
    assert document["thresholds"][0]["is_met"] is False
    assert document["equations"][1]["holds"] is False
    assert document["figures"]["click_to_row"]["p99_ms"] is None
