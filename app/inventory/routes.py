"""The operators' routes of inventory."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from app.inventory.queues import Queues
from app.inventory.stock import SaleStock, Stock
from app.sales.catalog import Catalog
from app.web.access import Access
from app.web.body import respond
from app.web.endpoint import Endpoint
from app.web.problem import problem


def admin_endpoints(
    catalog: Catalog, stock: Stock, read_queues: Callable[[], Awaitable[Queues]]
) -> list[Endpoint]:
    """
    Return the operators' routes of this stage.

    Args:
        catalog: sales by name.
        stock: reads where units are.
        read_queues: looks at every stream.
    """

    async def show(request: web.Request) -> web.StreamResponse:
        sale = await catalog.find(request.match_info["sale"])
        if sale is None:
            return problem("sale_not_found", request)
        return respond(request, 200, await stock.read(sale))

    async def queues(request: web.Request) -> web.StreamResponse:
        return respond(request, 200, await read_queues(), {"Cache-Control": "no-store"})

    return [
        Endpoint(
            method="GET",
            path="/admin/v1/queues",
            handler=queues,
            summary="How many orders wait to be flushed, and since when the oldest does.",
            access=Access.VIEWER,
            answers={200: Queues},
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/sales/{sale}/stock",
            handler=show,
            summary="Where every unit of a sale is.",
            access=Access.VIEWER,
            answers={200: SaleStock},
            refusals=("sale_not_found", "shard_unavailable"),
        ),
    ]
