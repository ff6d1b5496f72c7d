"""
Draws docs/STATES.md from the state tables: `make states` rewrites it.

Every `Machine` that a module of the service defines is drawn, so a new one
cannot be forgotten; test_docs.py fails when the page is stale.
"""

import importlib
from typing import Any, Final

from app.kernel.machine import Machine
from tests.style.sources import ROOT, python_sources

PAGE: Final = ROOT / "docs" / "STATES.md"
HEAD: Final = """\
# States

Drawn from the tables in the code by `make states`; do not edit. A pair of state and
event that is not drawn is refused: the guard of each UPDATE is made from the same table.
"""


def machines() -> list[tuple[str, Machine[Any, Any]]]:
    """Every state table, with the file that holds it, in the order of the stages."""
    the_map = (ROOT / "app" / "__init__.py").read_text(encoding="utf-8")
    found = []
    for source in python_sources("app"):
        if "= Machine(" not in source.text:
            continue
        values = vars(importlib.import_module(source.module)).values()
        found += [(source.name, value) for value in values if isinstance(value, Machine)]
    return sorted(found, key=lambda drawn: the_map.index(f"    {drawn[0].split('/')[1]} "))


def draw(machine: Machine[Any, Any]) -> str:
    """Return a machine as a mermaid diagram; events between the same two states share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), target in machine.moves.items():
        arrows.setdefault((str(state), str(target)), []).append(str(event))
    lines = ["stateDiagram-v2", f"    [*] --> {machine.start}"]
    lines += [
        f"    {state} --> {target}: {', '.join(events)}"
        for (state, target), events in arrows.items()
    ]
    lines += [f"    {state} --> [*]" for state in machine.finals()]
    return "\n".join(lines)


def page() -> str:
    """Return the whole of docs/STATES.md."""
    parts = [HEAD]
    parts += [
        f"## {machine.name.capitalize()}\n\n`{name}`\n\n```mermaid\n{draw(machine)}\n```\n"
        for name, machine in machines()
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
