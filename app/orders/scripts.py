"""Which script sells: one for each kind of sale, so that seckill pays nothing for groups."""

from collections.abc import Mapping
from typing import Final

from app.orders.stream import PLACE_ORDERS
from app.sales.sale import SaleKind
from app.storage.lua import BoundScript, bind_script

PLACE_GROUP_ORDERS: Final = "orders/place_group_orders"

# The coordinator notes the SHA of the script in the lease row.
SELLING_SCRIPTS: Final[Mapping[SaleKind, str]] = {
    SaleKind.SECKILL: PLACE_ORDERS,
    SaleKind.GROUP: PLACE_GROUP_ORDERS,
}


def selling_script(kind: SaleKind, incarnation: str) -> BoundScript:
    """Give the script of a kind of sale as one incarnation of the server knows it."""
    return bind_script(SELLING_SCRIPTS[kind], incarnation)
