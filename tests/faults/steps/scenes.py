"""
What is under way when a role dies: each scene brings a sale to the moment before one step.

A scene acts through the service's own functions, in this process, and leaves work that only the
role under test will do. It returns what must be true once a new process has finished it.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeAlias

from app.fulfilment.addresses import Addresses
from app.fulfilment.after_sale import Parcel
from app.fulfilment.delivery import tidy_delivery
from app.fulfilment.parcels import Outcome, Parcels
from app.fulfilment.seals import FieldSeals, read_seal_keys
from app.inventory.bucket import Gate
from app.inventory.lease import BucketMode
from app.inventory.lease_store import ask_to_recover
from app.inventory.move_store import ask_withdrawal
from app.kernel.ids import OrderKey
from app.orders.groups.group import NEW_GROUP, group_name
from app.orders.order import OrderState
from app.sales.sale import GroupTerms, SaleEvent, SaleKind
from tests.faults.steps.site import OLD_KEY, Site
from tests.waiting import eventually

Finished: TypeAlias = Callable[[], Awaitable[bool]]
Scene: TypeAlias = Callable[[Site], Awaitable[Finished]]

STOCK: Final = 10
GROUPS: Final = GroupTerms(size=3, window_seconds=600)
RESCUE_SECONDS: Final = 300
# Brings the end of every group near, and with it the last moment in which its members may pay.
END_GROUPS: Final = """
WITH near AS (
    UPDATE groups SET expires_at = now() + make_interval(secs => $1)
    RETURNING sale, bucket, id, expires_at
)
UPDATE orders o SET pay_by = least(o.pay_by, near.expires_at)
FROM near WHERE (o.sale, o.bucket, o.group_id) = (near.sale, near.bucket, near.id)"""


async def orders_wait(site: Site) -> Finished:
    """Two batches are in the stream."""
    await site.sale.open()
    await site.buy(3)
    await site.buy(2, quantity=2)

    async def finished() -> bool:
        return await site.sale.remaining() == STOCK - 7 and (await site.sale.lease()).reserved == 7

    return finished


async def poison_waits(site: Site) -> Finished:
    """Two batches are in the stream, and between them an order that Postgres refuses."""
    await site.sale.open()
    await site.buy(3)
    await site.sale.click("poisoner", reference="a\0b")
    await site.buy(2, quantity=2)

    async def finished() -> bool:
        letters = await site.sale.value("SELECT count(*) FROM dead_letters")
        remaining = await site.sale.remaining()
        return (letters, remaining, (await site.sale.lease()).reserved) == (1, STOCK - 7, 7)

    return finished


async def orders_expire(site: Site) -> Finished:
    """Two orders were not paid in time, one was just placed."""
    await site.sale.open()
    late = await site.buy(2, quantity=2)
    await site.sale.flush()
    await site.expire()
    (kept,) = await site.buy(1)

    async def finished() -> bool:
        states = [await site.state_of(key) for key in late]
        is_kept = await site.state_of(kept) == OrderState.PENDING
        returned = await site.sale.remaining() == STOCK - 1
        return states == [OrderState.CLOSED] * 2 and is_kept and returned

    return finished


async def payment_expires(site: Site) -> Finished:
    """Somebody opened a payment and did not pay in time; its provider must be asked."""
    key, _ = await payment_started(site)
    await site.expire()
    is_closed, has_all = has_state(site, key, OrderState.CLOSED), all_for_sale(site, STOCK)

    async def finished() -> bool:
        return await is_closed() and await has_all()

    return finished


async def return_asked(site: Site) -> Finished:
    """An order is closed; its units are not in Redis yet."""
    await site.sale.open()
    await site.buy(2, quantity=2)
    await site.sale.flush()
    await site.expire()
    await site.sale.close_orders()
    return all_for_sale(site, STOCK)


async def top_up_asked(site: Site) -> Finished:
    """Five units were added to the stock and granted."""
    await site.sale.open()
    await site.sale.restock(5)
    await site.sale.grant()
    return all_for_sale(site, STOCK + 5)


async def withdrawal_asked(site: Site) -> Finished:
    """Four units shall leave the bucket; nobody grants them anew here."""
    await site.sale.open()
    lease = await site.sale.lease()
    await ask_withdrawal(site.sale.shard(), lease.sale, lease.bucket, lease.epoch, 4)

    async def finished() -> bool:
        in_pool = await site.sale.pool()
        return (in_pool, await site.sale.remaining()) == (4, STOCK - 4)

    return finished


async def move_superseded(site: Site) -> Finished:
    """A return was asked for in an epoch that has ended meanwhile."""
    finished = await return_asked(site)
    await site.sale.recover()
    return finished


async def sale_published(site: Site) -> Finished:
    """A sale was published; it has no lease row yet."""
    await site.sale.publish(buckets=2)

    async def finished() -> bool:
        opened = [await is_open(site, bucket, 1) for bucket in range(2)]
        if not all(opened):
            return False
        # Who dies while granting leaves shares that are less even, never fewer units.
        return sum([await site.sale.remaining(bucket) for bucket in range(2)]) == STOCK

    return finished


async def epoch_asked(site: Site) -> Finished:
    """An operator asks for a new epoch while orders wait in the stream of the old one."""
    await site.sale.open()
    await site.buy(2)
    await site.sale.flush()
    await site.buy(2)
    lease = await site.sale.lease()
    await ask_to_recover(site.sale.shard(), lease.sale, lease.bucket, "operator")

    async def finished() -> bool:
        if not await is_open(site, 0, lease.epoch + 1):
            return False
        return await site.sale.remaining() == STOCK - 4

    return finished


async def sale_ended(site: Site) -> Finished:
    """The sale was closed by its merchant; orders wait in the stream."""
    await site.sale.open()
    await site.buy(2)
    await site.sale.change(SaleEvent.CLOSE)

    async def finished() -> bool:
        lease = await site.sale.lease()
        pool = await site.sale.pool()
        return lease.state is BucketMode.CLOSED and (lease.granted, pool) == (2, STOCK - 2)

    return finished


async def payment_told(site: Site) -> Finished:
    """The shopper has paid, and the gateway tells it until it is acknowledged."""
    key, number = await payment_started(site)
    await site.pay(number)
    return has_state(site, key, OrderState.PAID)


async def capture_to_post(site: Site) -> Finished:
    """A payment was captured; its fact waits in the outbox."""
    finished = await payment_told(site)
    async with site.serving():
        await eventually(finished)
    return finished


async def refund_asked(site: Site) -> Finished:
    """A payment came for an order that had been closed; its refund waits."""
    key, number = await payment_started(site)
    await site.expire()
    await site.sale.close_orders()
    await site.sale.move()
    await site.pay(number)

    async def is_asked() -> bool:
        return await site.sale.value("SELECT count(*) FROM refunds") == 1

    async with site.serving():
        await eventually(is_asked)

    return has_state(site, key, OrderState.CLOSED)


async def group_ends(site: Site) -> Finished:
    """A full group's time is over; one of its members has paid, and nobody was told."""
    await site.sale.open(kind=SaleKind.GROUP, group=GROUPS)
    orders = await group_of(site, 3)
    number = await site.start_payment(orders[0])
    await site.pay(number)
    async with site.serving():
        await eventually(has_state(site, orders[0], OrderState.PAID))
    await site.sale.execute(END_GROUPS, 0)
    has_all = all_for_sale(site, STOCK)

    async def finished() -> bool:
        states = [await site.state_of(key) for key in orders]
        failed = await site.sale.value("SELECT count(*) FROM groups WHERE state = 'failed'")
        refunds = await site.sale.value("SELECT count(*) FROM refunds")
        ended = [OrderState.REFUNDED, OrderState.CLOSED, OrderState.CLOSED]
        return (states, failed, refunds) == (ended, 1, 1) and await has_all()

    return finished


async def group_rescued(site: Site) -> Finished:
    """Two groups that fill one together have come near their end."""
    await site.sale.open(kind=SaleKind.GROUP, group=replace(GROUPS, rescue_seconds=RESCUE_SECONDS))
    orders = [*await group_of(site, 2), *await group_of(site, 1)]
    await site.sale.execute(END_GROUPS, RESCUE_SECONDS - 1)

    async def finished() -> bool:
        merged = await site.sale.value("SELECT count(*) FROM groups WHERE state = 'merged'")
        groups = await site.sale.value("SELECT count(DISTINCT group_id) FROM orders")
        told = await site.sale.value(
            "SELECT count(*) FROM order_events WHERE event = 'group_merged'"
        )
        return (merged, groups, told) == (1, 1, 1)

    assert len(orders) == GROUPS.size
    return finished


async def parcel_overdue(site: Site) -> Finished:
    """A parcel was shipped, and its shopper has said nothing for too long."""
    finished_paying = await payment_told(site)
    async with site.serving():
        await eventually(finished_paying)
    (key,) = site.accepted
    parcel = Parcel(carrier="SF", tracking_number="SF1")
    assert await Parcels(site.sale.shards).ship(key, parcel, "test") is Outcome.DONE
    await site.sale.execute(
        "UPDATE order_shipments SET confirm_by = shipped_at + interval '1 microsecond'"
    )

    async def finished() -> bool:
        received = await site.sale.value(
            "SELECT count(*) FROM order_events WHERE event = 'received'"
        )
        return (await site.state_of(key), received) == (OrderState.COMPLETED, 1)

    return finished


async def key_replaced(site: Site) -> Finished:
    """Where an order goes is sealed under a key that another one has replaced."""
    await site.sale.open()
    (key,) = await site.buy(1)
    await site.sale.flush()
    before = addresses_with(site, json.dumps([{**OLD_KEY, "use": "seal"}]))
    after = addresses_with(site, site.environment["DOORBUSTER_FULFILMENT__DELIVERY_KEYS"])
    home = tidy_delivery("Ann Lee", "+14155550100", "1 Main St")
    assert await before.change(key, home, actor="shopper")

    async def finished() -> bool:
        (row,) = await site.sale.rows("SELECT key_id FROM order_deliveries")
        return row["key_id"] == after.seals.kid and await after.find(key) == home

    return finished


async def group_of(site: Site, members: int) -> list[OrderKey]:
    """Let one shopper open a group and others join it, all with rows."""
    (leader,) = await site.buy(1, group=NEW_GROUP)
    name = group_name(leader.epoch, leader.seq)
    orders = [leader, *await site.buy(members - 1, group=name)]
    await site.sale.flush()
    return orders


def addresses_with(site: Site, keys: str) -> Addresses:
    return Addresses(site.sale.shards, FieldSeals(read_seal_keys(keys)))


async def payment_started(
    site: Site, provider: str = "sandbox", **terms: object
) -> tuple[OrderKey, str]:
    await site.sale.open(**terms)
    (key,) = await site.buy(1)
    await site.sale.flush()
    return key, await site.start_payment(key, provider)


def all_for_sale(site: Site, units: int) -> Finished:
    """Every unit is in Redis again."""

    async def finished() -> bool:
        return await site.sale.remaining() == units

    return finished


def has_state(site: Site, key: OrderKey, state: OrderState) -> Finished:
    async def finished() -> bool:
        return await site.state_of(key) == state

    return finished


async def is_open(site: Site, bucket: int, epoch_min: int) -> bool:
    """Whether a bucket sells, in this epoch or a later one."""
    lease = await site.sale.lease(bucket)
    if lease.state is not BucketMode.OPEN or lease.epoch < epoch_min:
        return False
    state = await site.sale.state(bucket)
    return state is not None and state.gate is Gate.OPEN
