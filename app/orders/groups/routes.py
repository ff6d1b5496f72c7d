"""The public view of a group: how far it has come, and nobody in it."""

from dataclasses import dataclass
from datetime import datetime

import msgspec
from aiohttp import web

from app.orders.groups.group import Group, GroupKey, GroupState, opening_order
from app.orders.groups.ids import read_group_id, write_group_id
from app.orders.groups.store import read_group
from app.orders.order import Order, Ticket, TicketState
from app.orders.sealing import OrderIds
from app.orders.store import read_ticket
from app.sales.catalog import Catalog
from app.storage.shards import Shard, Shards
from app.web.access import Access
from app.web.body import respond
from app.web.endpoint import Endpoint
from app.web.problem import problem


class GroupView(msgspec.Struct, frozen=True, kw_only=True):
    """
    A group as anybody sees it who was told its id.

    `merged_into` is the group in which its members are now.
    """

    group_id: str
    sale: str
    size: int
    seats_taken: int
    seats_paid: int
    state: GroupState
    expires_at: datetime
    merged_into: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDesk:
    """The collaborators of this route, made once in `wiring`."""

    shards: Shards
    catalog: Catalog
    ids: OrderIds


def endpoints(desk: GroupDesk) -> list[Endpoint]:
    """Return the public routes of groups."""
    return [
        Endpoint(
            method="GET",
            path="/v1/groups/{group}",
            handler=_Routes(desk).show,
            summary="How far a group has come; its id is the code that its leader shares.",
            access=Access.PUBLIC,
            answers={200: GroupView},
            refusals=("group_not_found", "order_not_confirmed", "shard_unavailable"),
        ),
    ]


async def _find(shard: Shard, key: GroupKey) -> Group | Ticket | None:
    """
    Look for a group, and before it has a row for the order that opens it.

    Returns:
        The ticket of that order while the flush has not come to it; None if there is no
        such group, or will be none.
    """
    group = await read_group(shard, key)
    if group is not None:
        return group
    opener = await read_ticket(shard, opening_order(*key))
    if isinstance(opener, Order):  # flushed between the two looks, and the group with it
        return await read_group(shard, key)
    return opener if opener is not None and opener.state is TicketState.QUEUED else None


class _Routes:
    def __init__(self, desk: GroupDesk) -> None:
        self._desk = desk

    async def show(self, request: web.Request) -> web.StreamResponse:
        desk = self._desk
        key = read_group_id(desk.ids, request.match_info["group"])
        if key is None:
            return problem("group_not_found", request)
        group = await _find(desk.shards.of(key.sale, key.bucket), key)
        sale = await desk.catalog.by_number(key.sale)
        if group is None or sale is None:
            return problem("group_not_found", request)
        if isinstance(group, Ticket):
            return problem("order_not_confirmed", request)
        into = None
        if group.merged_into is not None:
            into = write_group_id(desk.ids, key._replace(name=group.merged_into))
        view = GroupView(
            group_id=request.match_info["group"],
            sale=sale.id,
            size=group.size,
            seats_taken=group.seats_taken,
            seats_paid=group.seats_paid,
            state=group.state,
            expires_at=group.expires_at,
            merged_into=into,
        )
        return respond(request, 200, view, {"Cache-Control": "max-age=1"})
