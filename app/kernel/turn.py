"""
Serve together what comes one at a time within one turn of the event loop.

Sockets become readable in crowds, and a batch is answered at once. Going to the kernel and
back between any two of a crowd costs the interpreter its warm caches; served one after the
other without a system call between them, they cost a fifth less (docs/decisions/0040).
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turn(Generic[Item]):
    """
    Gathers items and hands all of them to `serve` in the loop's next turn, in order.

    Args:
        serve: gets 1..n items; must not raise.
    """

    def __init__(self, serve: Callable[[list[Item]], None]) -> None:
        self._serve = serve
        self._call_soon = asyncio.get_running_loop().call_soon
        self._items: list[Item] = []

    def add(self, item: Item) -> None:
        """Have one item served with the others of this turn."""
        if not self._items:
            self._call_soon(self._serve_all)
        self._items.append(item)

    def _serve_all(self) -> None:
        items, self._items = self._items, []
        self._serve(items)
