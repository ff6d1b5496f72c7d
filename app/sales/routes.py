"""The routes of sales: what shoppers see, and what operators do."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, TypeAlias

import msgspec
from aiohttp import web

from app.kernel.clock import instant, is_in_reach
from app.kernel.ids import SALE_MAX
from app.sales.catalog import Catalog
from app.sales.sale import (
    JOIN_ENDS_BEFORE_SECONDS,
    GroupTerms,
    Sale,
    SaleEvent,
    SaleKind,
    SaleState,
    SaleTerms,
    SaleView,
    faults_of_terms,
    id_from_title,
    stock_band,
    warnings_of_terms,
)
from app.sales.store import Act, add_stock, change_state, create_sale, list_sales
from app.sales.views import (
    AdminSale,
    AdminSaleList,
    GroupRules,
    PolicyRules,
    PublicSale,
    SaleList,
    admin_view,
    public_view,
)
from app.storage.shards import Shards
from app.web.access import Access
from app.web.body import read_body, respond
from app.web.endpoint import Endpoint
from app.web.headers import idempotency_key
from app.web.invalid import field_invalid, fields_invalid
from app.web.keys import OPERATOR
from app.web.problem import problem
from app.web.query import Page, decode_cursor, encode_cursor, read_query

DEFAULT_WINDOW: Final = timedelta(hours=24)  # of a sale whose closes_at is left out
DEFAULT_PAY_WITHIN_SECONDS: Final = 900

Available: TypeAlias = Callable[[Sale], Awaitable[int | None]]
"""Units that can still be sold, or None if nobody knows; a later stage counts them."""
GateSeen: TypeAlias = Callable[[Sale], Awaitable[bool]]
"""Whether every bucket has the gate of the sale row; a later stage looks."""

Units: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Instant: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=SALE_MAX)]  # in a cursor
Reason: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaleSettings:
    """What a sale may look like."""

    pay_within_seconds_min: int = 60  # embedded mode allows 1: demos cannot wait a minute
    group_window_seconds_min: int = 60  # embedded mode allows 6: joining ends 5 s before a group

    def __post_init__(self) -> None:
        assert 1 <= self.pay_within_seconds_min <= 3_600
        assert JOIN_ENDS_BEFORE_SECONDS < self.group_window_seconds_min <= 3_600


class CreateSale(PolicyRules, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The body of `POST /admin/v1/sales`."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
    stock: Units
    price_minor: Annotated[int, msgspec.Meta(ge=1, le=10**12)]
    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,40}(?!\n)$")] | None = None
    kind: SaleKind = SaleKind.SECKILL
    sku: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    merchant: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_.-]{0,64}(?!\n)$")] = ""
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}(?!\n)$")] = "CNY"
    limit_per_shopper: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    opens_at: Instant | None = None
    closes_at: Instant | None = None
    pay_within_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = DEFAULT_PAY_WITHIN_SECONDS
    buckets: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    group: GroupRules | None = None


class Restock(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/sales/{sale}/restock`."""

    units: Units
    reason: Reason


class ChangeSale(msgspec.Struct, forbid_unknown_fields=True):
    """The body of publish, pause, resume and close."""

    reason: Reason | None = None


class SalePage(Page, forbid_unknown_fields=True):
    """The query of a list of sales."""

    state: SaleView | None = None


class Now(msgspec.Struct, frozen=True):
    """The selling clock."""

    now: datetime
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaleDesk:
    """The collaborators of these routes, made once in `wiring`."""

    shards: Shards
    catalog: Catalog
    settings: SaleSettings
    now_ms: Callable[[], int]
    available: Available
    gate_seen: GateSeen

    def now(self) -> datetime:
        """Return the selling clock's time."""
        return instant(self.now_ms())


def endpoints(desk: SaleDesk) -> list[Endpoint]:
    """Return the public routes of this stage."""
    routes = _Routes(desk)
    return [
        Endpoint(
            method="GET",
            path="/v1/time",
            handler=routes.time,
            summary="The clock that decides the windows of sales.",
            access=Access.PUBLIC,
            answers={200: Now},
        ),
        Endpoint(
            method="GET",
            path="/v1/sales",
            handler=routes.list,
            summary="Published sales, newest first.",
            access=Access.PUBLIC,
            answers={200: SaleList},
            query=SalePage,
            refusals=("shard_unavailable",),
        ),
        Endpoint(
            method="GET",
            path="/v1/sales/{sale}",
            handler=routes.show,
            summary="One sale.",
            access=Access.PUBLIC,
            answers={200: PublicSale, 304: None},
            refusals=("sale_not_found", "shard_unavailable"),
        ),
    ]


def admin_endpoints(desk: SaleDesk) -> list[Endpoint]:
    """Return the operators' routes of this stage."""
    routes = _AdminRoutes(desk)
    changes = [
        Endpoint(
            method="POST",
            path=f"/admin/v1/sales/{{sale}}/{event}",
            handler=routes.change(event),
            summary=f"{event.value.capitalize()} a sale; repeating it has no second effect.",
            access=Access.OPERATOR,
            answers={200: AdminSale, 202: AdminSale},
            body=ChangeSale,
            refusals=("sale_not_found", "sale_state_conflict", "shard_unavailable"),
        )
        for event in SaleEvent
    ]
    return [
        Endpoint(
            method="POST",
            path="/admin/v1/sales",
            handler=routes.create,
            summary="Create a sale as a draft.",
            access=Access.OPERATOR,
            answers={201: AdminSale},
            body=CreateSale,
            refusals=(
                "validation_failed",
                "sale_state_conflict",
                "idempotency_mismatch",
                "shard_unavailable",
            ),
            idempotent_key=True,
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/sales",
            handler=routes.list,
            summary="Every sale, newest first.",
            access=Access.VIEWER,
            answers={200: AdminSaleList},
            query=SalePage,
            refusals=("shard_unavailable",),
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/sales/{sale}",
            handler=routes.show,
            summary="One sale, drafts too.",
            access=Access.VIEWER,
            answers={200: AdminSale},
            refusals=("sale_not_found", "shard_unavailable"),
        ),
        *changes,
        Endpoint(
            method="POST",
            path="/admin/v1/sales/{sale}/restock",
            handler=routes.restock,
            summary="Add units while the sale runs.",
            access=Access.OPERATOR,
            answers={200: AdminSale},
            body=Restock,
            refusals=(
                "sale_not_found",
                "sale_state_conflict",
                "idempotency_mismatch",
                "shard_unavailable",
            ),
            idempotent_key=True,
        ),
    ]


class _Routes:
    def __init__(self, desk: SaleDesk) -> None:
        self._desk = desk

    async def time(self, request: web.Request) -> web.StreamResponse:
        now_ms = self._desk.now_ms()
        return respond(request, 200, Now(instant(now_ms), now_ms), {"Cache-Control": "no-store"})

    async def list(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, SalePage)
        sales, following = await _page(self._desk, query, with_drafts=False)
        items = [await self._view(sale) for sale in sales]
        headers = {"Cache-Control": "max-age=1"}
        return respond(request, 200, SaleList(items=items, next=following), headers)

    async def show(self, request: web.Request) -> web.StreamResponse:
        sale = await self._desk.catalog.find(request.match_info["sale"])
        if sale is None or sale.state is SaleState.DRAFT:
            return problem("sale_not_found", request)
        view = await self._view(sale)
        tag = hashlib.sha256(msgspec.json.encode(view)).hexdigest()[:24]
        headers = {"ETag": f'"{tag}"', "Cache-Control": "max-age=1"}
        asked = request.headers.get("If-None-Match", "")
        if asked == "*" or f'"{tag}"' in asked:
            return web.Response(status=304, headers=headers)
        return respond(request, 200, view, headers)

    async def _view(self, sale: Sale) -> PublicSale:
        available = await self._desk.available(sale)
        band = None if available is None else stock_band(available, sale.stock_total)
        return public_view(sale, self._desk.now(), band)


class _AdminRoutes:
    def __init__(self, desk: SaleDesk) -> None:
        self._desk = desk

    async def create(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, CreateSale)
        _check_reach(body)
        now = self._desk.now()
        terms = _terms(body, now)
        settings = self._desk.settings
        faults = faults_of_terms(
            terms,
            pay_within_seconds_min=settings.pay_within_seconds_min,
            group_window_seconds_min=settings.group_window_seconds_min,
        )
        if faults:
            raise fields_invalid(faults)
        changed = await create_sale(
            self._desk.shards,
            terms,
            idempotency_key=key,
            fingerprint=hashlib.sha256(msgspec.json.encode(body)).digest()[:16],
            act=Act(request[OPERATOR].name, None),
        )
        if changed is None:
            detail = "another sale has this id"
            return problem("sale_state_conflict", request, detail=detail)
        self._desk.catalog.forget(changed.sale.id)
        headers = {"Location": f"/admin/v1/sales/{changed.sale.id}"}
        if not changed.is_new:
            headers["Idempotency-Replayed"] = "true"
        view = admin_view(changed.sale, now, warnings_of_terms(terms, now))
        return respond(request, 201, view, headers)

    async def list(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, SalePage)
        sales, following = await _page(self._desk, query, with_drafts=True)
        now = self._desk.now()
        items = [admin_view(sale, now) for sale in sales]
        return respond(request, 200, AdminSaleList(items=items, next=following))

    async def show(self, request: web.Request) -> web.StreamResponse:
        sale = await self._desk.catalog.find(request.match_info["sale"])
        if sale is None:
            return problem("sale_not_found", request)
        return respond(request, 200, admin_view(sale, self._desk.now()))

    def change(self, event: SaleEvent) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Make the handler of one event; 202 while a bucket does not show it yet."""

        async def handler(request: web.Request) -> web.StreamResponse:
            body = await read_body(request, ChangeSale)
            sale = await self._desk.catalog.find(request.match_info["sale"])
            if sale is None:
                return problem("sale_not_found", request)
            act = Act(request[OPERATOR].name, body.reason)
            changed = await change_state(self._desk.shards, sale.number, event, act)
            self._desk.catalog.forget(sale.id)
            if changed is None:
                return problem("sale_state_conflict", request, state=sale.state)
            seen = True
            if event is not SaleEvent.PUBLISH and sale.published_at is not None:
                seen = await self._desk.gate_seen(changed.sale)
            return respond(
                request, 200 if seen else 202, admin_view(changed.sale, self._desk.now())
            )

        return handler

    async def restock(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, Restock)
        sale = await self._desk.catalog.find(request.match_info["sale"])
        if sale is None:
            return problem("sale_not_found", request)
        changed = await add_stock(
            self._desk.shards,
            sale.number,
            body.units,
            idempotency_key=key,
            act=Act(request[OPERATOR].name, body.reason),
        )
        if changed is None:
            return problem("sale_state_conflict", request, state=sale.state)
        self._desk.catalog.forget(sale.id)
        headers = {} if changed.is_new else {"Idempotency-Replayed": "true"}
        return respond(request, 200, admin_view(changed.sale, self._desk.now()), headers)


async def _page(
    desk: SaleDesk, query: SalePage, *, with_drafts: bool
) -> tuple[list[Sale], str | None]:
    """Gather one page; a state that few sales have is looked for over several reads."""
    before = None if query.cursor is None else decode_cursor(query.cursor, _Number)
    found: list[Sale] = []
    while len(found) <= query.limit:
        sales = await list_sales(desk.shards, before, query.limit + 1)
        now = desk.now()
        found += [
            sale
            for sale in sales
            if (with_drafts or sale.state is not SaleState.DRAFT)
            and query.state in {None, sale.view_at(now)}
        ]
        if len(sales) <= query.limit:
            break
        before = sales[-1].number
    more = len(found) > query.limit
    found = found[: query.limit]
    return found, encode_cursor(found[-1].number) if more else None


def _check_reach(body: CreateSale) -> None:
    """Refuse the instants near the ends of time, before anything is added to them."""
    for name, moment in (("opens_at", body.opens_at), ("closes_at", body.closes_at)):
        if moment is not None and not is_in_reach(moment):
            raise field_invalid(path=f"$.{name}", message="not an instant of this millennium")


def _terms(body: CreateSale, now: datetime) -> SaleTerms:
    """Fill in the defaults that depend on the instant."""
    opens_at = body.opens_at or now
    sale_id = body.id or id_from_title(body.title)
    return SaleTerms(
        id=sale_id,
        kind=body.kind,
        title=body.title,
        sku=body.sku or sale_id,
        merchant=body.merchant,
        stock=body.stock,
        price_minor=body.price_minor,
        currency=body.currency,
        limit_per_shopper=body.limit_per_shopper,
        opens_at=opens_at,
        closes_at=body.closes_at or opens_at + DEFAULT_WINDOW,
        pay_within_seconds=body.pay_within_seconds,
        buckets=body.buckets,
        policy=body.terms(),
        group=GroupTerms(**msgspec.structs.asdict(body.group)) if body.group else None,
    )
