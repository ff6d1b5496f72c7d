"""The routes of payments: a shopper starts one, a provider tells how it went."""

import asyncio
from datetime import datetime
from typing import Annotated, Final, TypeAlias

import msgspec
from aiohttp import web

from app.kernel.clock import is_in_reach
from app.kernel.money import AMOUNT_MINOR_MAX
from app.payments.callback import Callbacks
from app.payments.intent import RefundState
from app.payments.operator_refunds import AskRefusal, RefundAsk, ask_refund, retry_refund
from app.payments.provider import HttpReply, Product, Refusal
from app.payments.refund_list import (
    AdminRefundView,
    Before,
    list_refunds,
    view_for_operators,
)
from app.payments.refunds_by_hand import CloseRefusal, Payout, close_refund
from app.payments.risk.routes import device_of
from app.payments.stage import PaymentStage
from app.payments.start import PaymentWish, StartRefusal, start_payment
from app.payments.views import PaymentView, RefundView, view_refund
from app.sales.store import Act
from app.web.access import Access
from app.web.body import read_body, read_raw, respond
from app.web.endpoint import Endpoint
from app.web.headers import idempotency_key
from app.web.invalid import InvalidRequest, field_invalid
from app.web.keys import OPERATOR, SHOPPER
from app.web.problem import problem
from app.web.query import Page, decode_cursor, encode_cursor, read_query

# What reading a body may come to, in the words that providers are answered with.
_REFUSALS: Final = {"request_timeout": Refusal.UNAVAILABLE}


# Told to providers as it is: WeChat Pay takes 80 characters.
Reason: TypeAlias = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*\Z"),
]


class StartPayment(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/orders/{order}/payments`."""

    provider: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    product: Product = Product.DIRECT
    return_url: (
        Annotated[str, msgspec.Meta(max_length=255, pattern=r"^https?://[!-~]+(?!\s)$")] | None
    ) = None
    # Who pays, as the wallet names the person to our app (WeChat Pay: openid); never kept.
    payer_id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")] | None = None


class AskRefund(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/orders/{order}/refunds`."""

    amount_minor: Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MINOR_MAX)]
    reason: Reason


class RetryRefund(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/refunds/{refund}/retry`."""

    reason: Reason


class RefundPage(Page, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/refunds`."""

    status: RefundState | None = None


class RefundList(msgspec.Struct):
    """A page of refunds, newest first."""

    items: list[AdminRefundView]
    next: str | None


class _Position(msgspec.Struct, array_like=True, frozen=True):
    """The last refund of a page."""

    requested_at: Annotated[datetime, msgspec.Meta(tz=True)]
    number: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{8,64}\Z")]


class CloseRefund(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/refunds/{refund}/close`."""

    reference: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z._-]{1,64}\Z")]
    reason: Reason


def endpoints(stage: PaymentStage) -> list[Endpoint]:
    """Return the public routes of this stage."""
    routes = _Routes(stage)
    return [
        Endpoint(
            method="POST",
            path="/v1/orders/{order}/payments",
            handler=routes.start,
            summary="Start a payment for a confirmed order.",
            access=Access.SHOPPER,
            answers={201: PaymentView},
            body=StartPayment,
            refusals=(*StartRefusal, "validation_failed", "overloaded", "shard_unavailable"),
            idempotent_key=True,
        ),
        *(
            Endpoint(
                method="POST",
                path=path,
                handler=routes.callback,
                summary="Take a provider's signed message; answered in the provider's own words.",
                access=Access.PROVIDER,
                answers={200: None},
                refusals=("not_found",),
            )
            for path in ("/v1/callbacks/{provider}", "/v1/callbacks/{provider}/{account}")
        ),
    ]


def admin_endpoints(stage: PaymentStage) -> list[Endpoint]:
    """Return the operators' routes of this stage."""
    routes = _AdminRoutes(stage)
    return [
        Endpoint(
            method="POST",
            path="/admin/v1/orders/{order}/refunds",
            handler=routes.ask,
            summary="Give money of a paid order back, in part or in full.",
            access=Access.OPERATOR,
            answers={201: RefundView},
            body=AskRefund,
            refusals=(*AskRefusal, "validation_failed", "shard_unavailable"),
            idempotent_key=True,
        ),
        Endpoint(
            method="GET",
            path="/admin/v1/refunds",
            handler=routes.list_all,
            summary="Refunds over all shards, newest first.",
            access=Access.VIEWER,
            answers={200: RefundList},
            query=RefundPage,
            refusals=("shard_unavailable",),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/refunds/{refund}/retry",
            handler=routes.retry,
            summary="Send a refund that its provider refused again, with the same number.",
            access=Access.OPERATOR,
            answers={200: RefundView},
            body=RetryRefund,
            refusals=("not_found", "validation_failed", "shard_unavailable"),
        ),
        Endpoint(
            method="POST",
            path="/admin/v1/refunds/{refund}/close",
            handler=routes.close,
            summary="End a refund that its provider refused and a person paid out, with proof.",
            access=Access.OPERATOR,
            answers={200: AdminRefundView},
            body=CloseRefund,
            refusals=(*CloseRefusal, "validation_failed", "shard_unavailable"),
        ),
    ]


class _Routes:
    def __init__(self, stage: PaymentStage) -> None:
        self._stage = stage
        self._callbacks = Callbacks(stage)

    async def start(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, StartPayment)
        wish = PaymentWish(
            order_id=request.match_info["order"],
            shopper=request[SHOPPER],
            idempotency_key=key,
            provider=self._checked(body),
            product=body.product,
            return_url=body.return_url,
            payer_id=body.payer_id,
            client_address=request.remote,
            device=device_of(request),
        )
        answer = await start_payment(self._stage, wish)
        if isinstance(answer, StartRefusal):
            return problem(answer, request)
        headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
        return respond(request, 201, answer.payment, headers)

    def _checked(self, body: StartPayment) -> str:
        """Return the provider that was asked for, when one of its accounts offers the product."""
        accounts = self._stage.providers.accounts(body.provider)
        if not accounts:
            raise field_invalid(path="$.provider", message="no such provider is configured")
        if not any(body.product in account.products for account in accounts):
            raise field_invalid(path="$.product", message=f"{body.provider} does not offer it")
        if body.product is Product.JSAPI and body.payer_id is None:
            raise field_invalid(path="$.payer_id", message="jsapi needs who pays")
        return body.provider

    async def callback(self, request: web.Request) -> web.StreamResponse:
        """Take one callback; whatever is wrong with it, its provider can read the answer."""
        told = request.match_info
        provider = self._stage.providers.find(told["provider"], told.get("account", ""))
        if provider is None:
            raise InvalidRequest(code="not_found")
        settings = self._stage.settings
        try:
            async with asyncio.timeout(settings.callback_seconds):
                raw = await read_raw(request, settings.callback_bytes_max)
                reply = await self._callbacks.receive(provider, request.headers, raw)
        except InvalidRequest as refused:
            # Too long, broken off, or packed: not one byte of it was looked at.
            refusal = _REFUSALS.get(refused.code, Refusal.MALFORMED)
            self._stage.tally.count_callback(provider.code, refused.code)
            reply = provider.ack(refusal)
        except TimeoutError:
            # Not committed, or committed and not told: the provider repeats either way.
            self._stage.tally.count_callback(provider.code, "too_slow")
            reply = provider.ack(Refusal.UNAVAILABLE)
        return _response(reply)


class _AdminRoutes:
    def __init__(self, stage: PaymentStage) -> None:
        self._stage = stage

    async def ask(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, AskRefund)
        ask = RefundAsk(
            order_id=request.match_info["order"],
            idempotency_key=key,
            amount_minor=body.amount_minor,
            reason=body.reason,
            actor=request[OPERATOR].name,
        )
        answer = await ask_refund(self._stage, ask)
        if isinstance(answer, AskRefusal):
            return problem(answer, request)
        headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
        return respond(request, 201, view_refund(answer.refund), headers)

    async def list_all(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, RefundPage)
        shards = self._stage.shards
        refunds = await list_refunds(shards, _before(query), query.status, query.limit + 1)
        page = refunds[: query.limit]
        more = len(refunds) > query.limit
        last = _Position(page[-1].requested_at, page[-1].number) if more else None
        items = [view_for_operators(refund) for refund in page]
        following = None if last is None else encode_cursor(last)
        return respond(request, 200, RefundList(items, following))

    async def retry(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, RetryRefund)
        act = Act(actor=request[OPERATOR].name, reason=body.reason)
        refund = await retry_refund(self._stage, request.match_info["refund"], act)
        if refund is None:
            return problem("not_found", request)
        return respond(request, 200, view_refund(refund))

    async def close(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, CloseRefund)
        act = Act(actor=request[OPERATOR].name, reason=body.reason)
        payout = Payout(reference=body.reference, act=act)
        answer = await close_refund(self._stage, request.match_info["refund"], payout)
        if isinstance(answer, CloseRefusal):
            return problem(answer, request)
        return respond(request, 200, view_for_operators(answer))


def _before(page: Page) -> Before | None:
    if page.cursor is None:
        return None
    at = decode_cursor(page.cursor, _Position)
    if not is_in_reach(at.requested_at):
        raise field_invalid(path="$.cursor", message="not a cursor of this list")
    return at.requested_at, at.number


def _response(reply: HttpReply) -> web.Response:
    headers = {"Content-Type": reply.content_type}
    return web.Response(status=reply.status, body=reply.body, headers=headers)
