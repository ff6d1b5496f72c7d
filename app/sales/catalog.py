"""
The catalog: what this process knows of sales, a second old at most.

The hot path asks for a sale on every click and must not wait for Postgres. A
known sale is served from memory; once it is older than a second the next
question starts one refresh in the background, so that a shard that does not
answer stops new names only, never a sale that already sells. The crowd that finds a
name unknown shares one look at it: a rush begins with thousands of them.
"""

import asyncio
import time
from dataclasses import dataclass

from app.kernel.errors import ShardUnavailable
from app.sales.sale import Sale
from app.sales.store import find_sale, read_sales
from app.storage.shards import Shards

FRESH_SECONDS = 1.0  # how old an answer may be before it is refreshed
UNKNOWN_MAX = 10_000  # unknown names remembered, so that guessing costs one query each
SALES_MAX = 50_000  # sales kept in memory


@dataclass(slots=True)
class _Known:
    sale: Sale
    read_at: float
    refreshing: bool = False


class Catalog:
    """Sales by id and by number, kept fresh."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._by_id: dict[str, _Known] = {}
        self._unknown: dict[str, float] = {}  # name -> when it was looked for
        self._by_number: dict[int, _Known] = {}
        self._looks: dict[str, asyncio.Task[Sale | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, sale_id: str) -> Sale | None:
        """
        Return a sale by its id; drafts too, for the caller to hide.

        Raises:
            ShardUnavailable: never seen before, and its shard does not answer.
        """
        return self.known(sale_id) or await self._first_look(sale_id)

    def known(self, sale_id: str) -> Sale | None:
        """Return a sale that this process knows already, without waiting for anything."""
        known = self._by_id.get(sale_id)
        if known is None:
            return None
        if time.monotonic() - known.read_at > FRESH_SECONDS and not known.refreshing:
            known.refreshing = True
            self._spawn(known)
        return known.sale

    async def by_number(self, number: int) -> Sale | None:
        """Return a sale by its number, as an order names it."""
        known = self._by_number.get(number)
        if known is not None:
            return await self.find(known.sale.id)
        found = await read_sales(self._shards.home(number), [number])
        if not found:
            return None
        self._remember(found[0])
        return found[0]

    def forget(self, sale_id: str) -> None:
        """Read a sale anew at the next question, because it was just changed here."""
        self._unknown.pop(sale_id, None)
        self._looks.pop(sale_id, None)  # it may have read what was there before
        known = self._by_id.pop(sale_id, None)
        if known is not None:
            self._by_number.pop(known.sale.number, None)

    async def close(self) -> None:
        """Stop looking and refreshing."""
        tasks = [*self._tasks, *self._looks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _first_look(self, sale_id: str) -> Sale | None:
        """Look a name up, together with all who ask for it meanwhile."""
        asked_at = self._unknown.get(sale_id, -FRESH_SECONDS)
        if time.monotonic() - asked_at < FRESH_SECONDS:
            return None  # nobody has it; it is not looked for again within a second
        look = self._looks.get(sale_id)
        if look is None:
            look = asyncio.get_running_loop().create_task(find_sale(self._shards, sale_id))
            self._looks[sale_id] = look
            look.add_done_callback(lambda done: self._end_look(sale_id, done))
        # Who leaves must not take the answer from the others.
        return await asyncio.shield(look)

    def _end_look(self, sale_id: str, look: "asyncio.Task[Sale | None]") -> None:
        """Remember what was found, unless the sale was changed here meanwhile."""
        is_newest = self._looks.get(sale_id) is look
        if is_newest:
            del self._looks[sale_id]
        failed = look.cancelled() or look.exception() is not None  # whoever waits hears it
        if failed or not is_newest:
            return
        sale = look.result()
        if sale is not None:
            self._remember(sale)
            return
        if len(self._unknown) >= UNKNOWN_MAX:
            self._unknown.clear()
        self._unknown[sale_id] = time.monotonic()

    def _remember(self, sale: Sale) -> None:
        if len(self._by_id) >= SALES_MAX:
            self._by_id.clear()
            self._by_number.clear()
        self._unknown.pop(sale.id, None)
        known = _Known(sale, time.monotonic())
        self._by_id[sale.id] = self._by_number[sale.number] = known

    def _spawn(self, known: _Known) -> None:
        task = asyncio.get_running_loop().create_task(self._refresh(known))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refresh(self, known: _Known) -> None:
        number = known.sale.number
        try:
            found = await read_sales(self._shards.home(number), [number])
        except ShardUnavailable:
            found = []  # the sale goes on with what is known
        if found:
            known.sale = found[0]
        known.read_at = time.monotonic()
        known.refreshing = False
