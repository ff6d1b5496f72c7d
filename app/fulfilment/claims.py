"""
The acts of an after-sale case: open, decide, send goods, settle.

Each is one transaction that locks the order's row first. Money leaves through
`payments.refund_requests` alone, in the transaction that settles the case.
"""

import enum
import hashlib
from dataclasses import dataclass
from typing import Final

from app.fulfilment import after_sale_store as store
from app.fulfilment.after_sale import (
    AfterSale,
    AfterSaleEvent,
    AfterSaleKind,
    AfterSaleReason,
    AfterSaleState,
    Parcel,
)
from app.kernel.errors import IdempotencyMismatch
from app.kernel.ids import OrderKey
from app.orders.life_store import move_order
from app.orders.order import Order, OrderEvent, OrderState
from app.orders.store import lock_order
from app.payments.intent import RefundReason
from app.payments.refund_requests import RefundRefused, RefundWish, request_refund
from app.storage.shards import Connection, Shards

CASES_MAX: Final = 99


class CaseRefused(enum.Enum):
    """Why nothing happened."""

    NOT_SHIPPED = enum.auto()  # before that there is cancelling
    NOTHING_LEFT = enum.auto()  # all of the money went back already: not even an exchange
    EXCEEDS_PAID = enum.auto()
    ANOTHER_OPEN = enum.auto()  # one case at a time
    NO_SUCH_CASE = enum.auto()
    WRONG_STATE = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """
    What a shopper asks for.

    Attributes:
        quantity: units concerned; None for all of the order's.
        amount_minor: None for the price of those units; an exchange has none.
    """

    kind: AfterSaleKind
    reason: AfterSaleReason
    quantity: int | None
    amount_minor: int | None

    def fingerprint(self) -> bytes:
        told = f"{self.kind} {self.reason} {self.quantity} {self.amount_minor}"
        return hashlib.sha256(told.encode()).digest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    One event of a case.

    Attributes:
        actor: who takes it.
        kind: of the cases it is for; None for every kind.
        parcel: that it speaks of.
    """

    event: AfterSaleEvent
    actor: str
    kind: AfterSaleKind | None = None
    parcel: Parcel | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """After-sale cases, over every shard."""

    shards: Shards

    async def open(
        self, key: OrderKey, claim: Claim, idempotency_key: str
    ) -> tuple[AfterSale, bool] | CaseRefused:
        """
        Open a case; return it, and whether this call did.

        Raises:
            IdempotencyMismatch: the key has opened another case.
        """
        async with self.shards.of(key.sale, key.bucket).transaction() as connection:
            order = await _lock(connection, key)
            known = await store.case_by_key(connection, key, idempotency_key)
            if known is not None:
                if known.fingerprint != claim.fingerprint():
                    raise IdempotencyMismatch
                return known, False
            cases = await store.cases_of_order(connection, key)
            refused = _refuse(order, claim, cases)
            if refused is not None:
                return refused
            quantity = claim.quantity or order.quantity
            new = store.NewCase(
                ordinal=len(cases) + 1,
                kind=claim.kind,
                reason=claim.reason,
                quantity=quantity,
                amount_minor=_amount(order, claim),
                idempotency_key=idempotency_key,
                fingerprint=claim.fingerprint(),
            )
            case = await store.insert_case(connection, key, new)
            await _tell(connection, case, "shopper")
        return case, True

    async def step(self, key: OrderKey, ordinal: int, step: Step) -> AfterSale | CaseRefused:
        """
        Let one event happen to a case; a repeat has no second effect.

        Settling a case that is about money writes the refund in the same transaction.
        """
        async with self.shards.of(key.sale, key.bucket).transaction() as connection:
            order = await _lock(connection, key)
            case = await store.read_case(connection, key, ordinal)
            if case is None:
                return CaseRefused.NO_SUCH_CASE
            if step.kind not in {None, case.kind}:
                return CaseRefused.WRONG_STATE
            if case.has_had(step.event):
                return case if _is_same(case, step) else CaseRefused.WRONG_STATE
            target = case.after(step.event)
            if target is None:
                return CaseRefused.WRONG_STATE
            number = None
            if target is AfterSaleState.SETTLED and case.kind is not AfterSaleKind.EXCHANGE:
                refund = await request_refund(connection, order, _refund_wish(case, step))
                if isinstance(refund, RefundRefused):
                    return CaseRefused.EXCEEDS_PAID
                number = refund.number
            moved = await store.move_case(
                connection, case, target, parcel=step.parcel, refund_number=number
            )
            await _tell(connection, moved, step.actor)
        return moved

    async def of_order(self, key: OrderKey) -> list[AfterSale]:
        """Return the cases of an order, the first one first."""
        async with self.shards.of(key.sale, key.bucket).connection() as connection:
            return await store.cases_of_order(connection, key)


def _refuse(order: Order, claim: Claim, cases: list[AfterSale]) -> CaseRefused | None:
    """Say what stands in a claim's way, the gravest first."""
    if order.state not in {OrderState.SHIPPED, OrderState.COMPLETED}:
        return CaseRefused.NOT_SHIPPED
    if any(case.is_open for case in cases) or len(cases) >= CASES_MAX:
        return CaseRefused.ANOTHER_OPEN
    if (claim.quantity or 1) > order.quantity:
        return CaseRefused.EXCEEDS_PAID
    left = order.total_minor - order.refunded_minor
    if left == 0:
        return CaseRefused.NOTHING_LEFT
    return CaseRefused.EXCEEDS_PAID if _amount(order, claim) > left else None


def _amount(order: Order, claim: Claim) -> int:
    if claim.kind is AfterSaleKind.EXCHANGE:
        return 0
    if claim.amount_minor is not None:
        return claim.amount_minor
    return order.price_minor * (claim.quantity or order.quantity)


def _is_same(case: AfterSale, step: Step) -> bool:
    """Say whether a repeat speaks of the parcel that was told before."""
    told = {
        AfterSaleEvent.SEND_GOODS: case.returned_by,
        AfterSaleEvent.RESEND: case.resent_by,
    }
    return step.event not in told or told[step.event] == step.parcel


def _refund_wish(case: AfterSale, step: Step) -> RefundWish:
    return RefundWish(
        amount_minor=case.amount_minor, reason=RefundReason.AFTER_SALE, actor=step.actor
    )


async def _lock(connection: Connection, key: OrderKey) -> Order:
    order = await lock_order(connection, key)
    assert order is not None, f"it was read a moment ago: {key}"
    return order


async def _tell(connection: Connection, case: AfterSale, actor: str) -> None:
    """Write into the order's timeline where a case stands now."""
    detail = {"after_sale": case.ordinal, "kind": case.kind, "state": case.state}
    told = await move_order(
        connection, case.order_key, OrderEvent.AFTER_SALE_MOVED, actor=actor, detail=detail
    )
    assert told, f"a case of an order that was never shipped: {case.order_key}"
