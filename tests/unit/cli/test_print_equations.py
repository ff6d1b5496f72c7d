"""How an audit reads on a terminal."""

from app.cli.audit import print_equations, summary
from app.kernel.equation import Doubt, Relation, equal, none_of, unjudged

STOCK = equal("I1", "sale spring", ("stock", 100), ("pool 40 + granted 61", 101))
LATE = none_of("I10", "sale spring", "orders placed outside the window", 1, ["order 1/0/1/7"])
MOVING = unjudged(
    "I3",
    "sale spring / bucket 0",
    ("remaining", Relation.EQUAL, "granted"),
    Doubt.IN_MOTION,
    "busy",
)


def test_a_line_shows_both_sides_and_its_counter_examples(capsys):
    print_equations([STOCK, LATE, MOVING])
    told = capsys.readouterr()
    assert [" ".join(line.split()) for line in told.out.splitlines()] == [
        "BROKEN I1 sale spring stock 100 = pool 40 + granted 61 (101)",
        "BROKEN I10 sale spring orders placed outside the window 1 = 0",
        "order 1/0/1/7",
        "in motion I3 sale spring / bucket 0 remaining = granted (busy)",
    ]
    assert told.err == "0 of 3 equations hold, 2 broken, 1 in motion\n"


def test_no_colour_reaches_a_pipe(capsys):
    print_equations([STOCK])
    assert "\x1b" not in capsys.readouterr().out


def test_the_sum_names_only_what_there_is():
    fine = equal("I1", "sale spring", ("stock", 1), ("pool", 1))
    assert summary([fine]) == "1 of 1 equations hold"
