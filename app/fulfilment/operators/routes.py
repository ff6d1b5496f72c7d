"""The operators' routes of paid orders: look, search, review, ship, note; a sale's policy."""

from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from app.fulfilment.after_sale import AfterSaleEvent
from app.fulfilment.claims import Step
from app.fulfilment.delivery import is_mobile
from app.fulfilment.desk import FulfilmentDesk
from app.fulfilment.parcel_store import write_note
from app.fulfilment.parcels import Outcome
from app.fulfilment.policy_store import set_policy
from app.fulfilment.review import Decision
from app.fulfilment.routes import CASE_REFUSALS, SendParcel, take_step
from app.fulfilment.views import (
    AfterSaleView,
    DeliveryView,
    FulfilmentView,
    NoteView,
    PolicyView,
    view_note,
    view_policy,
)
from app.orders.order import Order, TicketState
from app.orders.views import OrderList, OrderView
from app.sales.policy import faults_of_policy
from app.sales.store import Act, note_act
from app.sales.views import PolicyRules
from app.web.access import Access
from app.web.body import read_body, respond
from app.web.endpoint import Endpoint
from app.web.headers import idempotency_key
from app.web.invalid import field_invalid, fields_invalid
from app.web.keys import OPERATOR
from app.web.problem import problem

_FOUND: Final = (
    "order_not_found",
    "order_not_confirmed",
    "shard_unavailable",
)
_SALE: Final = ("sale_not_found", "shard_unavailable")
_CASE: Final = "/admin/v1/orders/{order}/after-sales/{number}/"

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class ReviewOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/orders/{order}/review`."""

    decision: Decision
    reason: Reason | None = None


class WriteNote(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/orders/{order}/notes`."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class SearchOrders(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/orders/search`: a number does not belong into a URL."""

    mobile: Annotated[str, msgspec.Meta(min_length=7, max_length=16)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20


def admin_endpoints(desk: FulfilmentDesk) -> list[Endpoint]:
    """Return the operators' routes of this stage."""
    routes = _Routes(desk)
    return [*_order_endpoints(routes), *_policy_endpoints(routes), *_case_endpoints(routes)]


def _order_endpoints(routes: "_Routes") -> list[Endpoint]:
    return [
        Endpoint(
            method="POST",
            path="/admin/v1/orders/search",
            handler=routes.search,
            summary="Find orders by the phone number they go to.",
            access=Access.OPERATOR,
            answers={200: OrderList},
            body=SearchOrders,
            refusals=("shard_unavailable",),
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/orders/{order}/fulfilment",
            handler=routes.show,
            summary="Review, shipment, after-sale cases, invoice wish and notes of an order.",
            access=Access.VIEWER,
            answers={200: FulfilmentView},
            refusals=_FOUND,
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/orders/{order}/delivery",
            handler=routes.show_delivery,
            summary="Where an order goes, in clear, for its label; each look is written down.",
            access=Access.OPERATOR,
            answers={200: DeliveryView},
            refusals=(*_FOUND, "not_found", "seal_key_missing"),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/orders/{order}/review",
            handler=routes.review,
            summary="Approve, hold or reject a paid order; a rejection refunds it.",
            access=Access.OPERATOR,
            answers={200: FulfilmentView},
            body=ReviewOrder,
            refusals=(*_FOUND, "order_not_reviewable"),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/orders/{order}/ship",
            handler=routes.ship,
            summary="Send a paid order on its way; the same number again changes nothing.",
            access=Access.OPERATOR,
            answers={200: OrderView},
            body=SendParcel,
            refusals=(*_FOUND, "order_not_shippable"),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/orders/{order}/notes",
            handler=routes.write_note,
            summary="Write something down about an order.",
            access=Access.OPERATOR,
            answers={201: NoteView},
            body=WriteNote,
            refusals=(*_FOUND, "idempotency_mismatch"),
            idempotent_key=True,
        ),
    ]


def _policy_endpoints(routes: "_Routes") -> list[Endpoint]:
    return [
        Endpoint(
            method="GET",
            path="/admin/v1/sales/{sale}/policy",
            handler=routes.show_policy,
            summary="What the merchant has decided about paid orders.",
            access=Access.VIEWER,
            answers={200: PolicyView},
            refusals=_SALE,
        ),
        Endpoint(
            method="PUT",
            path="/admin/v1/sales/{sale}/policy",
            handler=routes.set_policy,
            summary="Decide about paid orders: refunds, review, automatic receipt.",
            access=Access.OPERATOR,
            answers={200: PolicyView},
            body=PolicyRules,
            refusals=_SALE,
        ),
    ]


def _case_endpoints(routes: "_Routes") -> list[Endpoint]:
    acts = {
        "approve": (AfterSaleEvent.APPROVE, "Let the shopper send the goods back."),
        "refuse": (AfterSaleEvent.REFUSE, "Refuse a case, or goods that came back wrong."),
        "settle": (AfterSaleEvent.SETTLE, "Settle a case; where it is about money, refund it."),
        "resend": (AfterSaleEvent.RESEND, "Say by which parcel the other goods come."),
    }
    return [
        Endpoint(
            method="POST",
            path=_CASE + name,
            handler=routes.step(event),
            summary=summary,
            access=Access.OPERATOR,
            answers={200: AfterSaleView},
            body=SendParcel if event is AfterSaleEvent.RESEND else None,
            refusals=(*_FOUND, *CASE_REFUSALS),
        )
        for name, (event, summary) in acts.items()
    ]


class _Routes:
    def __init__(self, desk: FulfilmentDesk) -> None:
        self._desk = desk

    async def _order(self, request: web.Request) -> Order | web.Response:
        """Find an order, whoever's it is, or say why it cannot be acted on."""
        known = self._desk.orders.ids.read(request.match_info["order"])
        found = None if known is None else await self._desk.orders.read(known[0])
        if isinstance(found, Order):
            return found
        queued = found is not None and found.state is TicketState.QUEUED
        return problem("order_not_confirmed" if queued else "order_not_found", request)

    async def search(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, SearchOrders)
        if not is_mobile(body.mobile):
            raise field_invalid(path="$.mobile", message="must be E.164 or 11 digits")
        desk = self._desk.orders
        orders = await self._desk.acts.addresses.search(body.mobile, body.limit)
        ids = [desk.ids.write(order.key, order.shopper) for order in orders]
        items = [await desk.describe(*pair) for pair in zip(ids, orders, strict=True)]
        return respond(request, 200, OrderList(items=items, next=None))

    async def show(self, request: web.Request) -> web.StreamResponse:
        order = await self._order(request)
        if isinstance(order, web.Response):
            return order
        return respond(request, 200, await self._whole(request, order))

    async def show_delivery(self, request: web.Request) -> web.StreamResponse:
        order = await self._order(request)
        if isinstance(order, web.Response):
            return order
        delivery = await self._desk.acts.addresses.find(order.key)
        if delivery is None:
            return problem("not_found", request)
        act = Act(request[OPERATOR].name, None)
        async with self._desk.shard(order.key).transaction() as connection:
            await note_act(connection, act, "delivery read", request.match_info["order"], {})
        view = DeliveryView(
            receiver=delivery.receiver, mobile=delivery.mobile, address=delivery.address
        )
        return respond(request, 200, view, {"Cache-Control": "no-store"})

    async def review(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, ReviewOrder)
        if body.decision is not Decision.APPROVE and not (body.reason or "").strip():
            raise field_invalid(path="$.reason", message="say why it is not approved")
        order = await self._order(request)
        if isinstance(order, web.Response):
            return order
        outcome = await self._desk.acts.parcels.review(
            order.key, body.decision, body.reason, request[OPERATOR].name
        )
        if outcome is Outcome.REFUSED:
            return problem("order_not_reviewable", request)
        return respond(request, 200, await self._whole(request, order))

    async def ship(self, request: web.Request) -> web.StreamResponse:
        parcel = (await read_body(request, SendParcel)).parcel()
        order = await self._order(request)
        if isinstance(order, web.Response):
            return order
        shipped = await self._desk.acts.parcels.ship(order.key, parcel, request[OPERATOR].name)
        if shipped is Outcome.UNREVIEWED:
            return problem("order_not_shippable", request, awaits="review")
        if shipped is Outcome.REFUSED:
            return problem("order_not_shippable", request)
        view = await self._desk.describe(request.match_info["order"], order.key)
        return respond(request, 200, view)

    async def write_note(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, WriteNote)
        order = await self._order(request)
        if isinstance(order, web.Response):
            return order
        note, is_new = await write_note(
            self._desk.shard(order.key), order.key, body.text, request[OPERATOR].name, key
        )
        if note.text != body.text:
            return problem("idempotency_mismatch", request)
        headers = None if is_new else {"Idempotency-Replayed": "true"}
        return respond(request, 201, view_note(note), headers)

    async def show_policy(self, request: web.Request) -> web.StreamResponse:
        sale = await self._desk.orders.catalog.find(request.match_info["sale"])
        if sale is None:
            return problem("sale_not_found", request)
        policy = await self._desk.acts.parcels.policy_of(sale.number)
        return respond(request, 200, view_policy(sale.id, policy))

    async def set_policy(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, PolicyRules)
        policy = body.terms()
        if faults := faults_of_policy(policy):
            raise fields_invalid(faults)
        sale = await self._desk.orders.catalog.find(request.match_info["sale"])
        if sale is None:
            return problem("sale_not_found", request)
        home = self._desk.acts.shards.home(sale.number)
        await set_policy(home, sale.number, sale.id, policy, request[OPERATOR].name)
        self._desk.orders.catalog.forget(sale.id)
        return respond(request, 200, view_policy(sale.id, policy))

    def step(self, event: AfterSaleEvent) -> Any:  # noqa: ANN401  a handler, typed by Endpoint
        """Make the handler of one of the operators' steps of a case."""

        async def handler(request: web.Request) -> web.StreamResponse:
            parcel = None
            if event is AfterSaleEvent.RESEND:
                parcel = (await read_body(request, SendParcel)).parcel()
            order = await self._order(request)
            if isinstance(order, web.Response):
                return order
            step = Step(event=event, actor=request[OPERATOR].name, parcel=parcel)
            return await take_step(self._desk, request, order, step)

        return handler

    async def _whole(self, request: web.Request, order: Order) -> FulfilmentView:
        now = await self._desk.orders.read(order.key)
        assert isinstance(now, Order), order.key
        return await self._desk.describe_whole(request.match_info["order"], now)
