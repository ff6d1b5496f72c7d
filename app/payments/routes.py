"""The routes of payments: a shopper starts one, a provider tells how it went."""

import asyncio
from typing import Annotated, Final

import msgspec
from aiohttp import web

from app.payments.callback import receive_callback
from app.payments.provider import HttpReply, Product, Provider, Refusal
from app.payments.stage import PaymentStage
from app.payments.start import PaymentWish, StartRefusal, start_payment
from app.payments.views import PaymentView
from app.web.access import Access
from app.web.body import read_body, read_raw, respond
from app.web.endpoint import Endpoint
from app.web.headers import idempotency_key
from app.web.invalid import InvalidRequest, field_invalid
from app.web.keys import SHOPPER
from app.web.problem import problem

# What reading a body may come to, in the words that providers are answered with.
_REFUSALS: Final = {"request_timeout": Refusal.UNAVAILABLE}


class StartPayment(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/orders/{order}/payments`."""

    provider: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    product: Product
    return_url: (
        Annotated[str, msgspec.Meta(max_length=255, pattern=r"^https?://[!-~]+(?!\s)$")] | None
    ) = None


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


class _Routes:
    def __init__(self, stage: PaymentStage) -> None:
        self._stage = stage

    async def start(self, request: web.Request) -> web.StreamResponse:
        key = idempotency_key(request)
        body = await read_body(request, StartPayment)
        wish = PaymentWish(
            order_id=request.match_info["order"],
            shopper=request[SHOPPER],
            idempotency_key=key,
            provider=self._choose(body),
            product=body.product,
            return_url=body.return_url,
        )
        answer = await start_payment(self._stage, wish)
        if isinstance(answer, StartRefusal):
            return problem(answer, request)
        headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
        return respond(request, 201, answer.payment, headers)

    def _choose(self, body: StartPayment) -> Provider:
        provider = self._stage.providers.offering(body.provider)
        if provider is None:
            raise field_invalid(path="$.provider", message="no such provider is configured")
        if body.product not in provider.products:
            raise field_invalid(path="$.product", message=f"{body.provider} does not offer it")
        return provider

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
                reply = await receive_callback(self._stage, provider, request.headers, raw)
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


def _response(reply: HttpReply) -> web.Response:
    headers = {"Content-Type": reply.content_type}
    return web.Response(status=reply.status, body=reply.body, headers=headers)
