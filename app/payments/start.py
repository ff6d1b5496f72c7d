"""
Start a payment for a confirmed order.

The attempt's row is committed before the provider is called, in a transaction
that holds the pending order: from then on whatever happens to this process, the
enquiry finds the payment by its number. At most one attempt of an order is
alive; an earlier one is closed at its provider before another is opened. When a
route surely took nothing, the next one is tried, each by an attempt of its own.

Source:
    docs/CORRECTNESS.md §5, docs/PAYMENTS.md §4.4 and §4.6.
"""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeAlias

import structlog

from app.kernel.errors import ProviderUnavailable
from app.kernel.ids import OrderId, OrderKey
from app.orders.closer import AttemptsSettled
from app.orders.order import Order, OrderState, TicketState
from app.orders.store import lock_order_for_payment, read_ticket
from app.payments import store
from app.payments.expiry import ask_about, close_attempt
from app.payments.intent import (
    ORDINAL_MAX,
    Attempt,
    AttemptEvent,
    AttemptState,
    attempt_number,
    next_query_at,
    start_margin,
)
from app.payments.provider import (
    Action,
    ChargeRequest,
    NoAction,
    Outcome,
    Product,
    Provider,
    Result,
)
from app.payments.risk.gate import Subjects, count_starts, judge_start, pseudonyms
from app.payments.risk.rules import RiskSubject, Verdict
from app.payments.routing import RouteWish, leads_elsewhere
from app.payments.stage import PaymentStage
from app.payments.start_store import read_sale_id
from app.payments.views import PaymentStatus, PaymentView, view_payment
from app.storage.shards import Connection, Shard

_log = structlog.get_logger(__name__)


class StartRefusal(StrEnum):
    """Why no payment was started: codes of the problem catalogue."""

    ORDER_NOT_FOUND = "order_not_found"
    ORDER_NOT_CONFIRMED = "order_not_confirmed"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    PAYMENT_IN_PROGRESS = "payment_in_progress"
    PAYMENT_REFUSED = "payment_refused"
    PAYMENT_HELD = "payment_held"
    ORDER_NOT_PAYABLE = "order_not_payable"
    BALANCE_INSUFFICIENT = "balance_insufficient"


_REFUSED: Final = {
    Verdict.REFUSE: StartRefusal.PAYMENT_REFUSED,
    Verdict.HOLD: StartRefusal.PAYMENT_HELD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentWish:
    """What a shopper asks for; the amount is the order's and nobody's wish."""

    order_id: str
    shopper: str
    idempotency_key: str
    provider: str
    product: Product
    return_url: str | None = None
    payer_id: str | None = field(default=None, repr=False)
    client_address: str | None = field(default=None, repr=False)
    device: str | None = field(default=None, repr=False)  # as the client calls it
    over: frozenset[RiskSubject] = frozenset()  # who starts too often; counted, not told

    def fingerprint(self) -> bytes:
        """
        Eight bytes that differ when the same key comes with another content.

        Neither the account, which is the service's choice, nor the address and the
        device, which change on the way, are content.
        """
        told = (self.provider, self.product, self.return_url or "", self.payer_id or "")
        return hashlib.sha256("\n".join(told).encode()).digest()[:8]


@dataclass(frozen=True, slots=True)
class Started:
    """A payment, and whether an earlier request with this key had started it."""

    payment: PaymentView
    replayed: bool


@dataclass(frozen=True, slots=True)
class _Begun:
    """An attempt whose row is committed; `needs_call` when its provider may not know of it."""

    attempt: Attempt
    replayed: bool
    needs_call: bool


@dataclass(frozen=True, slots=True)
class _Blocked:
    """Another attempt is alive."""

    by: Attempt


_Tried: TypeAlias = frozenset[tuple[str, str]]
"""The accounts, by provider and name, that surely took nothing for this request."""


async def start_payment(stage: PaymentStage, wish: PaymentWish) -> Started | StartRefusal:
    """
    Open a payment for a shopper's own order, or return the one this key opened.

    Returns:
        The payment; its status is `unknown` when the provider did not answer, and
        the same request may then be repeated.

    Raises:
        ProviderUnavailable: the provider surely heard nothing; repeat.
        ShardUnavailable: the order's shard did not answer; repeat.
    """
    key = stage.order_ids.read_own(wish.order_id, wish.shopper)
    if key is None:
        return StartRefusal.ORDER_NOT_FOUND
    counted = await count_starts(stage, _subjects(stage, wish), wish.order_id, wish.idempotency_key)
    wish = replace(wish, over=counted)
    tried: _Tried = frozenset()
    while True:  # each turn leaves out one account more
        begun = await _begin_alone(stage, key, wish, tried)
        if not isinstance(begun, _Begun):
            return begun
        if not begun.needs_call:
            lost = begun.attempt.state is AttemptState.CREATED
            status = PaymentStatus.UNKNOWN if lost else None
            return Started(view_payment(begun.attempt, status), begun.replayed)
        opened = await _open(stage, wish, begun)
        if opened is not None:
            return opened
        tried |= {(begun.attempt.provider, begun.attempt.account)}


def _subjects(stage: PaymentStage, wish: PaymentWish) -> Subjects:
    return pseudonyms(stage.order_ids, wish.shopper, wish.device, wish.client_address)


async def _begin_alone(
    stage: PaymentStage, key: OrderKey, wish: PaymentWish, tried: _Tried
) -> _Begun | StartRefusal:
    """Begin an attempt; one that is alive is closed at its provider and asked about first."""
    begun = await _begin(stage, key, wish, tried)
    if isinstance(begun, _Blocked):
        ended = await close_attempt(stage, begun.by)
        if ended is not AttemptsSettled.UNKNOWN:
            begun = await _begin(stage, key, wish, tried)
    return StartRefusal.PAYMENT_IN_PROGRESS if isinstance(begun, _Blocked) else begun


async def _begin(
    stage: PaymentStage, key: OrderKey, wish: PaymentWish, tried: _Tried
) -> _Begun | _Blocked | StartRefusal:
    shard = stage.shards.of(key.sale, key.bucket)
    async with shard.transaction() as connection:
        order = await lock_order_for_payment(connection, key)
        if order is not None:
            return await _begin_for(stage, connection, order, wish, tried)
    return await _judge_ticket(shard, key)


async def _judge_ticket(shard: Shard, key: OrderKey) -> StartRefusal:
    """Say why an id that is ours has no row; the row may have come this moment."""
    known = await read_ticket(shard, key)
    if known is None:
        return StartRefusal.ORDER_NOT_FOUND
    rejected = known.state is TicketState.REJECTED
    return StartRefusal.ORDER_NOT_PAYABLE if rejected else StartRefusal.ORDER_NOT_CONFIRMED


async def _begin_for(
    stage: PaymentStage,
    connection: Connection,
    order: Order,
    wish: PaymentWish,
    tried: _Tried,
) -> _Begun | _Blocked | StartRefusal:
    if order.shopper != wish.shopper:
        return StartRefusal.ORDER_NOT_FOUND
    attempts = await store.attempts_of_order(connection, order.key)
    for attempt in attempts:
        if attempt.idempotency_key == wish.idempotency_key:
            return _repeat(stage, order, attempt, wish)
    refused = await _judge(stage, connection, order, wish, len(attempts))
    if refused is not None:
        return refused
    for attempt in attempts:
        if attempt.is_live:
            return _Blocked(attempt)
    route = await _choose_route(stage, connection, order, wish, tried)
    new = _new_attempt(stage, order, wish, route, len(attempts) + 1)
    inserted = await store.insert_attempt(connection, new)
    if inserted is None:
        return StartRefusal.PAYMENT_IN_PROGRESS
    return _Begun(inserted, replayed=False, needs_call=True)


async def _judge(
    stage: PaymentStage, connection: Connection, order: Order, wish: PaymentWish, tries: int
) -> StartRefusal | None:
    """Say why no further attempt may be opened, if so; the risk rules note it."""
    if not _is_payable(stage, order) or tries >= ORDINAL_MAX:
        return StartRefusal.ORDER_NOT_PAYABLE
    judged = await judge_start(stage, connection, order, _subjects(stage, wish), wish.over)
    return _REFUSED.get(judged.verdict)


async def _choose_route(
    stage: PaymentStage,
    connection: Connection,
    order: Order,
    wish: PaymentWish,
    tried: _Tried,
) -> Provider:
    """
    Choose the best route that was not tried yet.

    Raises:
        ProviderUnavailable: there is none; nothing is written.
    """
    sought = RouteWish(
        number=wish.order_id,
        provider=wish.provider,
        product=wish.product,
        amount_minor=order.total_minor,
        currency=order.currency,
        merchant=order.merchant,
        sale=await read_sale_id(connection, order.key),
    )
    for route in stage.routing.choose(stage.providers.accounts(wish.provider), sought):
        if (route.code, route.account.name) not in tried:
            return route
    raise ProviderUnavailable(provider=wish.provider)


def _repeat(
    stage: PaymentStage, order: Order, attempt: Attempt, wish: PaymentWish
) -> _Begun | StartRefusal:
    if attempt.fingerprint != wish.fingerprint():
        return StartRefusal.IDEMPOTENCY_MISMATCH
    if attempt.state is not AttemptState.CREATED:
        return _Begun(attempt, replayed=True, needs_call=False)
    # The request that made it may still be waiting for the provider.
    limit = timedelta(milliseconds=stage.settings.creating_ms_max)
    if stage.now() < attempt.created_at + limit:
        return StartRefusal.PAYMENT_IN_PROGRESS
    return _Begun(attempt, replayed=True, needs_call=_is_payable(stage, order))


def _is_payable(stage: PaymentStage, order: Order) -> bool:
    margin_max = timedelta(seconds=stage.settings.start_margin_seconds_max)
    margin = start_margin(order.placed_at, order.pay_by, margin_max)
    return order.state is OrderState.PENDING and stage.now() < order.pay_by - margin


def _new_attempt(
    stage: PaymentStage, order: Order, wish: PaymentWish, route: Provider, ordinal: int
) -> store.NewAttempt:
    now = stage.now()
    return store.NewAttempt(
        number=attempt_number(OrderId(wish.order_id), ordinal),
        order_key=order.key,
        ordinal=ordinal,
        idempotency_key=wish.idempotency_key,
        fingerprint=wish.fingerprint(),
        provider=route.code,
        account=route.account.name,
        product=wish.product,
        amount_minor=order.total_minor,
        currency=order.currency,
        created_at=now,
        expires_at=order.pay_by,
        next_query_at=next_query_at(0, now, order.pay_by, stage.settings),
    )


async def _open(
    stage: PaymentStage, wish: PaymentWish, begun: _Begun
) -> Started | StartRefusal | None:
    """
    Call the provider for a committed attempt.

    A repeated request calls again with the same number: to the provider that is
    the same request, and it gets the shopper the action that was lost.

    Returns:
        None when this route surely took nothing: the attempt has ended, its key is
        free, and the next route may be tried.
    """
    attempt = begun.attempt
    shard = stage.shards.of(attempt.order_key.sale, attempt.order_key.bucket)
    route = stage.providers.of(attempt.provider, attempt.account)
    result = await _call(stage, route, wish, attempt)
    told = "opened" if result.value is not None else str(result.outcome)
    stage.tally.count_payment(attempt.provider, told)
    if result.value is not None:
        stage.routing.note_opened(route, attempt.amount_minor)
        opened = await store.mark_open(shard, attempt.number, result.value.document())
        if isinstance(result.value, NoAction):
            await ask_about(stage, attempt)  # if this is cut off, the enquiry asks
            opened = None
        now = opened or await store.read_attempt(shard, attempt.number)
        return Started(view_payment(now), begun.replayed)
    _log.warning(
        "payment_not_opened", payment_id=attempt.number, outcome=result.outcome, code=result.code
    )
    if result.lacks_funds:
        event = AttemptEvent.PROVIDER_CLOSED
        await store.mark_passed_on(shard, attempt.number, event)
        return StartRefusal.BALANCE_INSUFFICIENT
    if begun.replayed:
        # The first call may have opened it all the same: the enquiry asks.
        return Started(view_payment(attempt, PaymentStatus.UNKNOWN), begun.replayed)
    if leads_elsewhere(result):
        not_sent = result.outcome is Outcome.NOT_SENT
        event = AttemptEvent.NEVER_SENT if not_sent else AttemptEvent.PROVIDER_CLOSED
        await store.mark_passed_on(shard, attempt.number, event)
        return None
    if result.outcome is Outcome.REJECTED:
        async with shard.connection() as connection:
            await store.mark_closed(connection, attempt.number)
        now = await store.read_attempt(shard, attempt.number)
        return Started(view_payment(now), begun.replayed)
    return Started(view_payment(attempt, PaymentStatus.UNKNOWN), begun.replayed)


async def _call(
    stage: PaymentStage, route: Provider, wish: PaymentWish, attempt: Attempt
) -> Result[Action]:
    """Call the provider unless its breaker is open: then nothing was sent."""
    if not stage.routing.may_call(route):
        return Result(Outcome.NOT_SENT, code="breaker_open")
    began_ms = stage.clock.now_ms()
    result = await _create(route, wish, attempt)
    stage.routing.note(route, wish.product, result, stage.clock.now_ms() - began_ms)
    return result


async def _create(provider: Provider, wish: PaymentWish, attempt: Attempt) -> Result[Action]:
    """
    Call, and after an unclear end call once more.

    Only what opens it makes that call clear: the first may be open although the second
    was refused or never sent, and nothing may be opened elsewhere then.
    """
    charge = ChargeRequest(
        number=attempt.number,
        product=wish.product,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        description=f"Order {wish.order_id}",
        created_at=attempt.created_at,
        expires_at=attempt.expires_at,
        return_url=wish.return_url,
        payer_id=wish.payer_id,
        client_address=wish.client_address,
        shopper=wish.shopper,
    )
    first = await provider.create(charge)
    if first.outcome is not Outcome.UNKNOWN:
        return first
    second = await provider.create(charge)
    return second if second.outcome in {Outcome.CONFIRMED, Outcome.PENDING} else first
