"""
The loser's reason: when the last order of a sale was taken, `GET /v1/sales/{sale}/last-order`.

Who was told "sold out" asks here how late they were; the script that said so, and its
refusals, carry nothing more for it. One look-up per bucket by the end of its primary
key, kept for a second, so that a hundred thousand losers cost one question a second.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from aiohttp import web

from app.kernel.clock import unix_ms
from app.orders.events.store import read_last_placed
from app.sales.catalog import Catalog
from app.sales.sale import SaleState
from app.storage.shards import Shards
from app.web.access import Access
from app.web.body import respond
from app.web.endpoint import Endpoint
from app.web.problem import problem

FRESH_SECONDS: Final = 1.0
_SALES_MAX: Final = 1_000  # remembered


class LastOrderView(msgspec.Struct, frozen=True, kw_only=True):
    """When the last order was taken; null for a sale without any, or none flushed yet."""

    sale: str
    last_placed_at: datetime | None
    ago_ms: int | None


@dataclass(frozen=True, slots=True)
class LastOrders:
    """The instants of the last orders, each read at most once a second."""

    shards: Shards
    catalog: Catalog
    now_ms: Callable[[], int]
    known: dict[int, tuple[float, "asyncio.Future[datetime | None]"]]

    async def of(self, sale: int) -> datetime | None:
        """
        Return when the last order of a sale was placed, as of a second ago at most.

        Raises:
            ShardUnavailable: a shard of its buckets did not answer.
        """
        read_at, asked = self.known.get(sale, (-FRESH_SECONDS, None))
        if asked is None or time.monotonic() - read_at > FRESH_SECONDS:
            if len(self.known) >= _SALES_MAX:
                self.known.clear()
            asked = asyncio.ensure_future(self._read(sale))
            self.known[sale] = (time.monotonic(), asked)
        return await asyncio.shield(asked)

    async def _read(self, sale: int) -> datetime | None:
        told = await asyncio.gather(*(read_last_placed(one, sale) for one in self.shards.all))
        return max((one for one in told if one is not None), default=None)


def last_order_endpoint(orders: LastOrders) -> Endpoint:
    """Return the route."""

    async def show(request: web.Request) -> web.StreamResponse:
        sale = await orders.catalog.find(request.match_info["sale"])
        if sale is None or sale.state is SaleState.DRAFT:
            return problem("sale_not_found", request)
        placed_at = await orders.of(sale.number)
        ago_ms = None if placed_at is None else max(0, orders.now_ms() - unix_ms(placed_at))
        view = LastOrderView(sale=sale.id, last_placed_at=placed_at, ago_ms=ago_ms)
        return respond(request, 200, view, {"Cache-Control": "max-age=1"})

    return Endpoint(
        method="GET",
        path="/v1/sales/{sale}/last-order",
        handler=show,
        summary="When the last order was taken: how late one was who was told `sold_out`.",
        access=Access.PUBLIC,
        answers={200: LastOrderView},
        refusals=("sale_not_found", "shard_unavailable"),
    )
