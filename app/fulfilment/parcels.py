"""
The acts between payment and receipt: review, ship, confirm, and take back what was paid.

Each is one transaction that locks the order's row first, so that two acts on one
order take turns; the row's state decides, by the order's table.
"""

import enum
from dataclasses import dataclass
from datetime import datetime

from app.fulfilment import parcel_store as store
from app.fulfilment.after_sale import Parcel
from app.fulfilment.policy import Policy
from app.fulfilment.policy_store import read_policy
from app.fulfilment.review import REVIEW_MACHINE, Decision, ReviewState
from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.orders.groups.store import is_whole
from app.orders.life_store import move_order
from app.orders.order import Order, OrderEvent, OrderReason, OrderState
from app.orders.store import lock_order
from app.payments.calls import count_over
from app.payments.intent import RefundReason
from app.payments.refund_requests import RefundRefused, RefundWish, request_refund
from app.storage.shards import Connection, Shard, Shards


class Outcome(enum.Enum):
    """What became of an act."""

    DONE = enum.auto()
    ALREADY = enum.auto()  # a repeat: no second effect
    REFUSED = enum.auto()  # the order's state does not allow it
    UNREVIEWED = enum.auto()  # an operator must approve it first


@dataclass(frozen=True, slots=True)
class Parcels:
    """Review, shipping and receipt, over every shard."""

    shards: Shards

    async def policy_of(self, sale: int) -> Policy:
        """Return the policy of a sale, from its home shard."""
        return await read_policy(self.shards.home(sale), sale)

    async def review(
        self, key: OrderKey, decision: Decision, reason: str | None, actor: str
    ) -> Outcome:
        """
        Decide whether a paid order is shipped; a rejection refunds all of it.

        Returns:
            REFUSED unless the order is paid and the review's table allows it.
        """
        async with self._shard(key).transaction() as connection:
            order = await _lock(connection, key)
            known = await store.read_review(connection, key)
            state = REVIEW_MACHINE.start if known is None else known.state
            if known is not None and _has_led_to(decision, state):
                return Outcome.ALREADY
            target = REVIEW_MACHINE.moves.get((state, decision))
            if target is None or order.state is not OrderState.PAID:
                return Outcome.REFUSED
            detail = {"review": target, "reason": reason}
            if not await move_order(
                connection, key, OrderEvent.REVIEWED, actor=actor, detail=detail
            ):
                return Outcome.REFUSED
            await store.put_review(connection, key, target, reason, actor)
            if target is ReviewState.REJECTED:
                await _refund_rejected(connection, order, actor)
        return Outcome.DONE

    async def ship(self, key: OrderKey, parcel: Parcel, actor: str) -> Outcome:
        """
        Send a paid order on its way.

        Returns:
            ALREADY for the number it was shipped under; REFUSED for another one, and
            for an order that is not paid.
        """
        policy = await self.policy_of(key.sale)
        async with self._shard(key).transaction() as connection:
            order = await _lock(connection, key)
            known = await store.read_shipment(connection, key)
            if known is not None:
                return Outcome.ALREADY if known.parcel == parcel else Outcome.REFUSED
            if order.state is OrderState.PAID and await _awaits_review(connection, order, policy):
                return Outcome.UNREVIEWED
            if not await is_whole(connection, order):
                return Outcome.REFUSED
            detail = {"carrier": parcel.carrier, "tracking_number": parcel.tracking_number}
            if not await move_order(
                connection, key, OrderEvent.SHIPPED, actor=actor, detail=detail
            ):
                return Outcome.REFUSED
            await store.insert_shipment(connection, key, parcel, policy.confirm_after_seconds)
        return Outcome.DONE

    async def confirm_receipt(self, key: OrderKey) -> Outcome:
        """Complete a shipped order because its shopper has it."""
        async with self._shard(key).transaction() as connection:
            order = await _lock(connection, key)
            if order.state is OrderState.COMPLETED:
                return Outcome.ALREADY
            if not await move_order(
                connection, key, OrderEvent.RECEIVED, actor="shopper", detail={}
            ):
                return Outcome.REFUSED
            await store.mark_received(connection, key)
        return Outcome.DONE

    async def take_back(self, key: OrderKey, now: datetime) -> Outcome:
        """
        Cancel a paid order for its shopper, if the sale's policy gives the money back.

        The refund, the order's end and the return of its units are one transaction.
        """
        policy = await self.policy_of(key.sale)
        async with self._shard(key).transaction() as connection:
            order = await _lock(connection, key)
            if order.state is OrderState.REFUNDED:
                cancelled = order.reason is OrderReason.CANCELLED_BY_SHOPPER
                return Outcome.ALREADY if cancelled else Outcome.REFUSED
            if not policy.gives_back(order, now):
                return Outcome.REFUSED
            wish = RefundWish(
                amount_minor=None,
                reason=RefundReason.CANCELLED,
                order_reason=OrderReason.CANCELLED_BY_SHOPPER,
                actor="shopper",
            )
            refund = await request_refund(connection, order, wish)
            assert not isinstance(refund, RefundRefused), f"paid, and nothing to refund: {key}"
            failpoint("take_back.before_commit")
        failpoint("take_back.after_commit")
        return Outcome.DONE

    async def confirm_overdue_once(self, orders_max: int) -> int:
        """
        Complete shipped orders whose time to complain is over; one pass over every shard.

        Raises:
            ShardUnavailable: of one; the others have had their turn. Call again.
        """

        async def confirm(shard: Shard) -> int:
            return await store.confirm_overdue(shard, orders_max)

        return await count_over(self.shards.all, confirm)

    def _shard(self, key: OrderKey) -> Shard:
        return self.shards.of(key.sale, key.bucket)


async def _lock(connection: Connection, key: OrderKey) -> Order:
    order = await lock_order(connection, key)
    assert order is not None, f"it was read a moment ago: {key}"
    return order


def _has_led_to(decision: Decision, state: ReviewState) -> bool:
    """Say whether a review stands where this decision leads: a repeat of it."""
    return any(
        decided == decision and target == state
        for (_, decided), target in REVIEW_MACHINE.moves.items()
    )


async def _awaits_review(connection: Connection, order: Order, policy: Policy) -> bool:
    """Say whether nobody has approved an order that needs it, or somebody holds it."""
    known = await store.read_review(connection, order.key)
    if known is None:
        return policy.needs_review(order)
    return known.state is not ReviewState.APPROVED


async def _refund_rejected(connection: Connection, order: Order, actor: str) -> None:
    wish = RefundWish(
        amount_minor=None,
        reason=RefundReason.REVIEW_REJECTED,
        order_reason=OrderReason.REVIEW_REJECTED,
        actor=actor,
    )
    refund = await request_refund(connection, order, wish)
    assert not isinstance(refund, RefundRefused), f"paid, and nothing to refund: {order.key}"
