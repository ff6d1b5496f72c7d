"""What a person reads of equations."""

from collections.abc import Iterable

from app.kernel.equation import Equation


def told(equations: Iterable[Equation]) -> str:
    """All that is said of some equations, a line each."""
    return "\n".join(
        " ".join(
            [
                equation.invariant,
                equation.subject,
                f"{equation.left} {equation.left_value}",
                f"{equation.right} {equation.right_value}",
                *equation.counter_examples,
            ]
        )
        for equation in equations
    )
