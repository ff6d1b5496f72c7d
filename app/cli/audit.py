"""`doorbuster audit`: every promise that the stores can prove, as an equation."""

import sys
from collections.abc import Sequence
from typing import Any, Final

import click
from rich.text import Text

from app.cli.exits import Exit
from app.cli.output import print_json, results, tell
from app.cli.stores import Stores, run_with_stores, store_options
from app.kernel.equation import Doubt, Equation, Verdict, equations_as_json, verdict_of
from app.settlement.full_audit import audit_all

EXIT_OF: Final = {
    Verdict.HOLDS: Exit.DONE,
    Verdict.BROKEN: Exit.BROKEN,
    Verdict.INCONCLUSIVE: Exit.INCONCLUSIVE,
    Verdict.UNREACHABLE: Exit.UNREACHABLE,
}

_STYLES: Final = {"holds": "green", "BROKEN": "bold red", Doubt.IN_MOTION: "dim"}


@click.command()
@click.option("--sale", metavar="S", help="Only this sale; the ledger is judged whole.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@store_options
def audit(*, sale: str | None, as_json: bool, **where: Any) -> None:  # noqa: ANN401  store_options
    """
    Judge every invariant, while a sale runs or at rest; change nothing.

    What holds only at rest is told to be "in motion" while orders are on their way,
    and judged in its live form. Exit codes: 0 all hold, 3 one is broken, 4 one could
    not be judged because its bucket recovers, 5 a store does not answer.
    """

    async def ask(stores: Stores) -> list[Equation]:
        return await audit_all(stores.shards, stores.redis, stores.ledger, stores.deployment, sale)

    equations = run_with_stores(ask, **where)
    if as_json:
        print_json(equations_as_json(equations))
    else:
        print_equations(equations)
    sys.exit(EXIT_OF[verdict_of(equations)])


def print_equations(equations: Sequence[Equation]) -> None:
    """Print a line for each equation, its counter-examples below it, and the sum on stderr."""
    console = results()
    for equation in equations:
        console.print(_line(equation), soft_wrap=True)
        for example in equation.counter_examples:
            console.print(Text(f"{'':18}{example}", style="red"), soft_wrap=True)
    tell(summary(equations))


def summary(equations: Sequence[Equation]) -> str:
    """Say in one sentence how an audit went."""
    counts = equations_as_json(equations)["counts"]
    holding = counts["judged"] - counts["broken"]
    parts = [f"{holding} of {len(equations)} equations hold"]
    parts += [
        f"{counts[name]} {name.replace('_', ' ')}"
        for name in ("broken", "in_motion", "recovering", "unreachable")
        if counts[name]
    ]
    return ", ".join(parts)


def _line(equation: Equation) -> Text:
    word = _word(equation)
    line = Text(f"{word:11}", style=_STYLES.get(word, "yellow"))
    line.append(f"  {equation.invariant:4} {equation.subject:32}  ", style="default")
    line.append(_sides(equation), style="default")
    if equation.note:
        line.append(f"  ({equation.note})", style="dim")
    return line


def _word(equation: Equation) -> str:
    if equation.holds is None:
        assert equation.doubt is not None
        return equation.doubt
    return "holds" if equation.holds else "BROKEN"


def _sides(equation: Equation) -> str:
    left = _side(equation.left, equation.left_value)
    right = _side(equation.right, equation.right_value)
    return f"{left} {equation.relation} {right}"


def _side(words: str, value: int | None) -> str:
    """Write "stock 100", "pool 40 + granted 60 (100)", or a bare number once."""
    if value is None or words == str(value):
        return words
    return f"{words} ({value})" if " + " in words else f"{words} {value}"
