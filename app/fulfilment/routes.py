"""The shopper's routes of paid orders: where to, received, invoice, after-sale."""

from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from app.fulfilment.after_sale import AfterSaleEvent, AfterSaleKind, AfterSaleReason, Parcel
from app.fulfilment.claims import CaseRefused, Claim, Step
from app.fulfilment.delivery import faults_of_delivery, tidy_delivery
from app.fulfilment.desk import FulfilmentDesk
from app.fulfilment.invoice import InvoiceKind, InvoiceWish, faults_of_wish
from app.fulfilment.parcels import Outcome
from app.fulfilment.views import AfterSaleList, AfterSaleView, InvoiceView, view_case, view_invoice
from app.orders.order import Order, TicketState
from app.orders.views import OrderView
from app.web.access import Access
from app.web.body import read_body, respond
from app.web.endpoint import Endpoint
from app.web.headers import idempotency_key
from app.web.invalid import field_invalid, fields_invalid
from app.web.keys import SHOPPER
from app.web.problem import problem

MONEY_MINOR_MAX: Final = 10**15
_FOUND: Final = (
    "order_not_found",
    "order_not_confirmed",
    "shard_unavailable",
)
CASE_REFUSALS: Final = ("after_sale_not_found", "after_sale_conflict", "refund_exceeds_paid")


class ChangeDelivery(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/orders/{order}/delivery`; personal, so its repr is never written."""

    receiver: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    mobile: Annotated[str, msgspec.Meta(min_length=7, max_length=16)]
    address: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class WishInvoice(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/orders/{order}/invoice-wish`."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    kind: InvoiceKind = InvoiceKind.PERSONAL
    tax_number: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Z]{15,20}$(?!\n)")] | None = None


class OpenAfterSale(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/orders/{order}/after-sales`."""

    kind: AfterSaleKind
    reason: AfterSaleReason
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000)] | None = None
    amount_minor: Annotated[int, msgspec.Meta(ge=1, le=MONEY_MINOR_MAX)] | None = None


Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[ -~]*$(?!\n)")]
"""A carrier or a tracking number: printable ASCII, as carriers print them."""


class SendParcel(msgspec.Struct, forbid_unknown_fields=True):
    """Who carries goods, and under which number."""

    carrier: Word
    tracking_number: Word

    def parcel(self) -> Parcel:
        """Return what was told; a word of spaces is none."""
        for path, word in (("carrier", self.carrier), ("tracking_number", self.tracking_number)):
            if not word.strip():
                raise field_invalid(path=f"$.{path}", message="must not be blank")
        return Parcel(carrier=self.carrier.strip(), tracking_number=self.tracking_number.strip())


def endpoints(desk: FulfilmentDesk) -> list[Endpoint]:
    """Return the public routes of this stage."""
    routes = _Routes(desk)
    return [
        Endpoint(
            method="PUT",
            path="/v1/orders/{order}/delivery",
            handler=routes.change_delivery,
            summary="Say where an order goes; it may be changed until it is shipped.",
            access=Access.SHOPPER,
            answers={200: OrderView},
            body=ChangeDelivery,
            refusals=(*_FOUND, "delivery_locked", "seal_key_missing"),
        ),
        Endpoint(
            method="POST",
            path="/v1/orders/{order}/confirm-receipt",
            handler=routes.confirm_receipt,
            summary="Say that the goods are there; repeating it has no second effect.",
            access=Access.SHOPPER,
            answers={200: OrderView},
            refusals=(*_FOUND, "order_not_confirmable"),
        ),
        Endpoint(
            method="PUT",
            path="/v1/orders/{order}/invoice-wish",
            handler=routes.wish_invoice,
            summary="Say to whom the invoice goes.",
            access=Access.SHOPPER,
            answers={200: InvoiceView},
            body=WishInvoice,
            refusals=_FOUND,
        ),
        *_case_endpoints(routes),
    ]


def _case_endpoints(routes: "_Routes") -> list[Endpoint]:
    return [
        Endpoint(
            method="POST",
            path="/v1/orders/{order}/after-sales",
            handler=routes.open_case,
            summary="Ask for money back, for a return or for an exchange.",
            access=Access.SHOPPER,
            answers={201: AfterSaleView},
            body=OpenAfterSale,
            refusals=(
                *_FOUND,
                "not_refundable",
                "refund_exceeds_paid",
                "after_sale_conflict",
                "idempotency_mismatch",
            ),
            idempotent_key=True,
        ),
        Endpoint(
            method="GET",
            path="/v1/orders/{order}/after-sales",
            handler=routes.list_cases,
            summary="The after-sale cases of an order.",
            access=Access.SHOPPER,
            answers={200: AfterSaleList},
            refusals=_FOUND,
        ),
        Endpoint(
            method="POST",
            path="/v1/orders/{order}/after-sales/{number}/withdraw",
            handler=routes.step(AfterSaleEvent.WITHDRAW),
            summary="Give up a case before the goods are sent back.",
            access=Access.SHOPPER,
            answers={200: AfterSaleView},
            refusals=(*_FOUND, *CASE_REFUSALS),
        ),
        Endpoint(
            method="POST",
            path="/v1/orders/{order}/after-sales/{number}/send-goods",
            handler=routes.step(AfterSaleEvent.SEND_GOODS),
            summary="Say by which parcel the goods come back.",
            access=Access.SHOPPER,
            answers={200: AfterSaleView},
            body=SendParcel,
            refusals=(*_FOUND, *CASE_REFUSALS),
        ),
        Endpoint(
            method="POST",
            path="/v1/orders/{order}/after-sales/{number}/confirm-receipt",
            handler=routes.step(AfterSaleEvent.SETTLE),
            summary="Say that the goods of an exchange are there.",
            access=Access.SHOPPER,
            answers={200: AfterSaleView},
            refusals=(*_FOUND, *CASE_REFUSALS),
        ),
    ]


class _Routes:
    def __init__(self, desk: FulfilmentDesk) -> None:
        self._desk = desk

    async def _own(self, request: web.Request) -> Order | web.Response:
        """Find the shopper's own order, or say why it cannot be acted on."""
        found = await self._desk.orders.read_own(request.match_info["order"], request[SHOPPER])
        if isinstance(found, Order):
            return found
        queued = found is not None and found.state is TicketState.QUEUED
        return problem("order_not_confirmed" if queued else "order_not_found", request)

    async def _answer(self, request: web.Request, order: Order) -> web.Response:
        view = await self._desk.describe(request.match_info["order"], order.key)
        return respond(request, 200, view)

    async def change_delivery(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, ChangeDelivery)
        delivery = tidy_delivery(body.receiver, body.mobile, body.address)
        if faults := faults_of_delivery(delivery):
            raise fields_invalid(faults)
        order = await self._own(request)
        if isinstance(order, web.Response):
            return order
        if not await self._desk.acts.addresses.change(order.key, delivery, actor="shopper"):
            return problem("delivery_locked", request)
        return await self._answer(request, order)

    async def confirm_receipt(self, request: web.Request) -> web.StreamResponse:
        order = await self._own(request)
        if isinstance(order, web.Response):
            return order
        if await self._desk.acts.parcels.confirm_receipt(order.key) is Outcome.REFUSED:
            return problem("order_not_confirmable", request)
        return await self._answer(request, order)

    async def wish_invoice(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, WishInvoice)
        wish = InvoiceWish(kind=body.kind, title=body.title, tax_number=body.tax_number)
        if faults := faults_of_wish(wish):
            raise fields_invalid(faults)
        order = await self._own(request)
        if isinstance(order, web.Response):
            return order
        await self._desk.acts.addresses.wish_invoice(order.key, wish)
        return respond(request, 200, view_invoice(wish))

    async def open_case(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, OpenAfterSale)
        if body.kind is AfterSaleKind.EXCHANGE and body.amount_minor is not None:
            raise field_invalid(path="$.amount_minor", message="an exchange is not about money")
        order = await self._own(request)
        if isinstance(order, web.Response):
            return order
        claim = Claim(
            kind=body.kind,
            reason=body.reason,
            quantity=body.quantity,
            amount_minor=body.amount_minor,
        )
        opened = await self._desk.acts.claims.open(order.key, claim, key)
        if isinstance(opened, CaseRefused):
            return refuse_case(request, opened)
        case, is_new = opened
        headers = None if is_new else {"Idempotency-Replayed": "true"}
        return respond(request, 201, view_case(case), headers)

    async def list_cases(self, request: web.Request) -> web.StreamResponse:
        order = await self._own(request)
        if isinstance(order, web.Response):
            return order
        cases = await self._desk.acts.claims.of_order(order.key)
        return respond(request, 200, AfterSaleList(items=[view_case(case) for case in cases]))

    def step(self, event: AfterSaleEvent) -> Any:  # noqa: ANN401  a handler, typed by Endpoint
        """Make the handler of one of the shopper's steps."""

        async def handler(request: web.Request) -> web.StreamResponse:
            parcel = None
            if event is AfterSaleEvent.SEND_GOODS:
                parcel = (await read_body(request, SendParcel)).parcel()
            order = await self._own(request)
            if isinstance(order, web.Response):
                return order
            # Only an exchange is for its shopper to settle: the others are about money.
            kind = AfterSaleKind.EXCHANGE if event is AfterSaleEvent.SETTLE else None
            step = Step(event=event, actor="shopper", kind=kind, parcel=parcel)
            return await take_step(self._desk, request, order, step)

        return handler


async def take_step(
    desk: FulfilmentDesk, request: web.Request, order: Order, step: Step
) -> web.Response:
    """Let one step of a case happen, whoever takes it, and answer with the case."""
    number = request.match_info["number"]
    if not (number.isascii() and number.isdigit() and 1 <= len(number) <= 2):
        return problem("after_sale_not_found", request)
    moved = await desk.acts.claims.step(order.key, int(number), step)
    if isinstance(moved, CaseRefused):
        return refuse_case(request, moved)
    return respond(request, 200, view_case(moved))


_CODES: Final = {
    CaseRefused.NOT_SHIPPED: "not_refundable",
    CaseRefused.NOTHING_LEFT: "not_refundable",
    CaseRefused.EXCEEDS_PAID: "refund_exceeds_paid",
    CaseRefused.ANOTHER_OPEN: "after_sale_conflict",
    CaseRefused.NO_SUCH_CASE: "after_sale_not_found",
    CaseRefused.WRONG_STATE: "after_sale_conflict",
}


def refuse_case(request: web.Request, refused: CaseRefused) -> web.Response:
    """Say why nothing happened to a case."""
    return problem(_CODES[refused], request)
