"""The routes of orders: place, look, list, cancel; and the operators' views."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web

from app.kernel.clock import is_in_reach
from app.kernel.ids import BUCKET_MAX, EPOCH_MAX, SALE_MAX, SEQ_MAX, OrderKey
from app.orders.desk import Before, OrderDesk
from app.orders.groups.wish import group_of_order, group_of_ticket, wished_group
from app.orders.order import Order, OrderState, Ticket, TicketState
from app.orders.placement import Click
from app.orders.refusals import PLACING_REFUSALS, outcome_name, refusal_of
from app.orders.selling import Accepted
from app.orders.store import CloseAsked, order_timeline, read_ticket
from app.orders.views import (
    OrderList,
    OrderView,
    TicketView,
    view_confirmed,
    view_order,
    view_ticket,
)
from app.sales.sale import Sale, SaleState
from app.web.access import Access
from app.web.body import read_body, respond
from app.web.endpoint import Endpoint
from app.web.headers import idempotency_key, wait_seconds
from app.web.invalid import field_invalid
from app.web.keys import SHOPPER
from app.web.problem import problem
from app.web.query import Page, decode_cursor, encode_cursor, read_query


class PlaceOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/sales/{sale}/orders`."""

    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    group: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    reference: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[ -~]*$(?!\n)")] | None = None


class OrderPage(Page, forbid_unknown_fields=True):
    """The query of a list of orders."""

    status: OrderState | None = None


class AdminOrderPage(Page, forbid_unknown_fields=True):
    """The query of the operators' list of orders."""

    status: OrderState | None = None
    sale: Annotated[str, msgspec.Meta(max_length=40)] | None = None


class _Position(msgspec.Struct, array_like=True, frozen=True):
    """The last order of a page."""

    placed_at: Annotated[datetime, msgspec.Meta(tz=True)]
    sale: Annotated[int, msgspec.Meta(ge=0, le=SALE_MAX)]
    bucket: Annotated[int, msgspec.Meta(ge=0, le=BUCKET_MAX)]
    epoch: Annotated[int, msgspec.Meta(ge=0, le=EPOCH_MAX)]
    seq: Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an order's life."""

    number: int
    event: str
    state: str
    actor: str
    detail: dict[str, Any]
    recorded_at: datetime


class OrderTimeline(msgspec.Struct, frozen=True, kw_only=True):
    """An order with everything that happened to it."""

    order: OrderView
    shopper: str | None
    key: dict[str, int]
    timeline: list[EventView]


def endpoints(desk: OrderDesk) -> list[Endpoint]:
    """Return the public routes of this stage."""
    routes = _Routes(desk)
    return [
        Endpoint(
            method="POST",
            path="/v1/sales/{sale}/orders",
            handler=routes.place,
            summary="Buy: hold units and queue the order in one act.",
            access=Access.SHOPPER,
            answers={202: TicketView, 201: TicketView},
            body=PlaceOrder,
            refusals=PLACING_REFUSALS,
            idempotent_key=True,
            prefer_wait=True,
            speaks_msgpack=True,
        ),
        Endpoint(
            method="GET",
            path="/v1/orders/{order}",
            handler=routes.show,
            summary="One of the shopper's own orders.",
            access=Access.SHOPPER,
            answers={200: OrderView},
            refusals=("order_not_found", "shard_unavailable"),
            speaks_msgpack=True,
        ),
        Endpoint(
            method="GET",
            path="/v1/orders",
            handler=routes.list_own,
            summary="The shopper's confirmed orders over all shards, newest first.",
            access=Access.SHOPPER,
            answers={200: OrderList},
            query=OrderPage,
            refusals=("shard_unavailable",),
            speaks_msgpack=True,
        ),
        Endpoint(
            method="POST",
            path="/v1/orders/{order}/cancel",
            handler=routes.cancel,
            summary="Cancel an unpaid order; repeating it has no second effect.",
            access=Access.SHOPPER,
            answers={200: OrderView},
            refusals=(
                "order_not_found",
                "order_not_confirmed",
                "order_not_cancellable",
                "shard_unavailable",
            ),
            speaks_msgpack=True,
        ),
    ]


def admin_endpoints(desk: OrderDesk) -> list[Endpoint]:
    """Return the operators' routes of this stage."""
    routes = _AdminRoutes(desk)
    return [
        Endpoint(
            method="GET",
            path="/admin/v1/orders",
            handler=routes.list_all,
            summary="Orders over all shards, newest first.",
            access=Access.VIEWER,
            answers={200: OrderList},
            query=AdminOrderPage,
            refusals=("sale_not_found", "shard_unavailable"),
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/orders/{order}",
            handler=routes.show,
            summary="One order with its full timeline.",
            access=Access.VIEWER,
            answers={200: OrderTimeline},
            refusals=("order_not_found", "shard_unavailable"),
        ),
    ]


class _Routes:
    def __init__(self, desk: OrderDesk) -> None:
        self._desk = desk

    async def place(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, PlaceOrder)
        sale = await self._desk.catalog.find(request.match_info["sale"])
        if sale is None or sale.state is SaleState.DRAFT:
            return problem("sale_not_found", request)
        group = wished_group(self._desk.ids, sale, body.group)
        if group is None:
            return problem("group_not_found", request)
        click = Click(request[SHOPPER], key, body.quantity, body.reference or "", group)
        outcome = await self._desk.placement.place(sale, click)
        self._desk.count_answer(sale.id, outcome_name(outcome))
        if isinstance(outcome, Accepted):
            return await self._accept(request, sale, click, outcome)
        refusal = refusal_of(sale, outcome, self._desk.now_ms())
        return problem(refusal.code, request, **refusal.fields)

    async def _accept(
        self, request: web.Request, sale: Sale, click: Click, accepted: Accepted
    ) -> web.StreamResponse:
        order_id = accepted.order_id
        headers = {"Location": f"/v1/orders/{order_id}"}
        if accepted.is_replay:
            headers["Idempotency-Replayed"] = "true"
        seconds = wait_seconds(request)
        if seconds:
            order = await self._desk.confirmations.wait_for(
                accepted.key, accepted.entry_id, seconds
            )
            if order is not None:
                view = view_confirmed(
                    order_id, sale.id, order, group_of_order(self._desk.ids, order)
                )
                return respond(request, 201, view, headers)
        group = group_of_ticket(self._desk.ids, accepted.key, click.group)
        view = view_ticket(order_id, sale, click.quantity, click.reference, accepted, group)
        return respond(request, 202, view, headers)

    async def show(self, request: web.Request) -> web.StreamResponse:
        order_id = request.match_info["order"]
        found = await self._desk.read_own(order_id, request[SHOPPER])
        if found is None:
            return problem("order_not_found", request)
        # For those who poll because too many listen: a ticket's row is about to be there.
        queued = isinstance(found, Ticket) and found.state is TicketState.QUEUED
        headers = {"Retry-After": "1"} if queued else None
        return respond(request, 200, await self._desk.describe(order_id, found), headers)

    async def list_own(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, OrderPage)
        orders = await self._desk.list_own(
            request[SHOPPER], _before(query), query.status, query.limit + 1
        )
        return respond(request, 200, await _page(self._desk, orders, query.limit))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        order_id, shopper = request.match_info["order"], request[SHOPPER]
        found = await self._desk.read_own(order_id, shopper)
        if found is None:
            return problem("order_not_found", request)
        if isinstance(found, Ticket):
            queued = found.state is TicketState.QUEUED
            return problem("order_not_confirmed" if queued else "order_not_cancellable", request)
        if await self._desk.cancel(found) is CloseAsked.REFUSED:
            return problem("order_not_cancellable", request)
        after = await self._desk.read_own(order_id, shopper)
        assert after is not None, "a row that was just changed"
        return respond(request, 200, await self._desk.describe(order_id, after))


class _AdminRoutes:
    def __init__(self, desk: OrderDesk) -> None:
        self._desk = desk

    async def list_all(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, AdminOrderPage)
        number = None
        if query.sale is not None:
            sale = await self._desk.catalog.find(query.sale)
            if sale is None:
                return problem("sale_not_found", request)
            number = sale.number
        orders = await self._desk.list_all(number, _before(query), query.status, query.limit + 1)
        return respond(request, 200, await _page(self._desk, orders, query.limit))

    async def show(self, request: web.Request) -> web.StreamResponse:
        order_id = request.match_info["order"]
        known = self._desk.ids.read(order_id)
        if known is None:
            return problem("order_not_found", request)
        key = known[0]
        shard = self._desk.shards.of(key.sale, key.bucket)
        found = await read_ticket(shard, key)
        if found is None:
            return problem("order_not_found", request)
        timeline = OrderTimeline(
            order=await self._desk.describe(order_id, found),
            shopper=found.shopper if isinstance(found, Order) else None,
            key=key._asdict(),
            timeline=[EventView(**event) for event in await order_timeline(shard, key)],
        )
        return respond(request, 200, timeline)


async def _page(desk: OrderDesk, orders: list[Order], limit: int) -> OrderList:
    items = []
    for order in orders[:limit]:
        sale = await desk.catalog.by_number(order.key.sale)
        assert sale is not None, "an order of no sale"
        order_id, group = desk.ids.write(order.key, order.shopper), group_of_order(desk.ids, order)
        items.append(view_order(order_id, sale, order, group=group))
    more = len(orders) > limit
    last = orders[limit - 1] if more else None
    return OrderList(
        items=items,
        next=None if last is None else encode_cursor(_Position(last.placed_at, *last.key)),
    )


def _before(page: Page) -> Before | None:
    if page.cursor is None:
        return None
    at = decode_cursor(page.cursor, _Position)
    if not is_in_reach(at.placed_at):
        raise field_invalid(path="$.cursor", message="not a cursor of this list")
    return at.placed_at, OrderKey(at.sale, at.bucket, at.epoch, at.seq)
