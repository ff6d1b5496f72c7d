"""Groups on both stores: they form once, fail whole, and are merged when they fit."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from app.inventory.seats import GroupEntry
from app.kernel.clock import unix_ms
from app.kernel.ids import OrderKey
from app.orders.answers import PlaceCode, Refused
from app.orders.groups.audit import audit_groups
from app.orders.groups.group import GroupKey
from app.orders.groups.settling import GroupSettings, GroupSettler
from app.orders.groups.store import (
    SeatPaid,
    fail_group,
    is_whole,
    pay_seat,
    read_group,
    release_group,
)
from app.orders.life_store import add_refunded, mark_refunded
from app.orders.order import OrderReason, OrderState
from app.orders.selling import Accepted
from app.orders.store import MarkPaid, ask_to_close, lock_order, mark_paid, read_orders
from app.sales.sale import GroupTerms, LeaderPolicy, SaleKind
from tests.stores.orders.running_sale import RunningSale
from tests.stores.told import told

SIZE = 3
WINDOW_SECONDS = 600


class GroupSale:
    """A running group sale, and what its shoppers and its settler do."""

    def __init__(self, shop: RunningSale) -> None:
        self.shop = shop

    async def open(self, **terms: Any) -> None:
        group = GroupTerms(**{"size": SIZE, "window_seconds": WINDOW_SECONDS, **terms})
        await self.shop.open(kind=SaleKind.GROUP, stock=30, group=group)

    async def lead(self, shopper: str, **more: Any) -> tuple[OrderKey, str]:
        """Open a group; give the leader's order and the group's name."""
        order = await self.shop.buy(shopper, group="new", **more)
        return order, f"{order.epoch}.{order.seq}"

    async def team(self, *shoppers: str) -> tuple[str, list[OrderKey]]:
        """Let the first open a group and the others join it, with rows for all."""
        leader, name = await self.lead(shoppers[0])
        joined = [await self.shop.buy(shopper, group=name) for shopper in shoppers[1:]]
        await self.shop.flush()
        return name, [leader, *joined]

    async def pay(self, key: OrderKey) -> SeatPaid:
        """Capture a payment as the payment stage does: order and seat in one transaction."""
        async with self.shop.shard().transaction() as connection:
            order = await lock_order(connection, key)
            assert order is not None
            assert order.group_id is not None
            paid = await mark_paid(connection, key, datetime.now(UTC), actor="test", detail={})
            assert paid is MarkPaid.PAID
            return await pay_seat(connection, key, order.group_id)

    async def refund(self, key: OrderKey) -> None:
        """Give back the whole of a paid order as the payment stage does."""
        async with self.shop.shard().transaction() as connection:
            order = await lock_order(connection, key)
            assert order is not None
            assert await add_refunded(connection, key, order.total_minor)
            assert await mark_refunded(connection, key, None, actor="test", detail={})

    async def cancel(self, key: OrderKey) -> None:
        async with self.shop.shard().transaction() as connection:
            reason = OrderReason.CANCELLED_BY_SHOPPER
            await ask_to_close(connection, key, reason, actor="shopper")
        await self.shop.close_orders()

    async def settle(self) -> None:
        """Let the settler, the closer and the mover do what there is to do."""
        settler = GroupSettler(self.shop.shard(), self.duties, GroupSettings())
        while await settler.settle_groups_once() + await self.shop.move():
            pass
        await self.shop.close_orders()
        await self.shop.move()

    @property
    def duties(self):
        return self.shop.duties[self.shop.shard().index]

    async def end(self, name: str, seconds: int = 0) -> None:
        """Bring a group's end near, and with it the last moment in which its members may pay."""
        await self.shop.execute(
            """
            WITH near AS (
                UPDATE groups SET expires_at = now() + make_interval(secs => $2) WHERE id = $1
                RETURNING id, expires_at
            )
            UPDATE orders o SET pay_by = least(o.pay_by, near.expires_at)
            FROM near WHERE o.group_id = near.id""",
            name,
            seconds,
        )

    async def group(self, name: str):
        return await read_group(self.shop.shard(), self.key(name))

    def key(self, name: str) -> GroupKey:
        return GroupKey(self.shop.sale.number, 0, name)

    async def states(self, orders: list[OrderKey]) -> list[str]:
        rows = await read_orders(self.shop.shard(), orders)
        return [rows[key].state.value for key in orders]

    async def refunds_asked(self) -> int:
        return await self.shop.value("SELECT count(*) FROM outbox WHERE kind = 'group_refund'")

    async def at_rest(self) -> str:
        """Let every worker finish, and say what does not hold, groups included."""
        said = await self.shop.at_rest()
        equations = await audit_groups(self.shop.shards, self.shop.redis, self.shop.deployment)
        assert equations
        return said + told([one for one in equations if one.holds is not True])

    async def entries(self) -> dict[str, GroupEntry]:
        keys = self.shop.keys(epoch=(await self.shop.lease()).epoch)
        fields = await self.shop.redis.hgetall(keys.groups)
        return {name.decode(): GroupEntry.unpack(packed) for name, packed in fields.items()}

    async def members(self) -> dict[str, str]:
        keys = self.shop.keys(epoch=(await self.shop.lease()).epoch)
        fields = await self.shop.redis.hgetall(keys.members)
        return {shopper.decode(): group.decode() for shopper, group in fields.items()}


@pytest.fixture
async def sale(shop: RunningSale) -> GroupSale:
    opened = GroupSale(shop)
    await opened.open()
    return opened


async def test_the_flush_writes_a_group_with_the_order_that_opens_it(sale):
    name, (leader, joined) = await sale.team("ann", "bob")
    group = await sale.group(name)
    rows = await read_orders(sale.shop.shard(), [leader, joined])

    assert (group.size, group.seats_taken, group.seats_paid, group.state) == (3, 2, 0, "open")
    assert {row.group_id for row in rows.values()} == {name}
    placed_ms = unix_ms(rows[leader].placed_at)
    assert unix_ms(group.expires_at) == placed_ms + 1_000 * WINDOW_SECONDS
    assert all(row.pay_by <= group.expires_at for row in rows.values())
    assert (await sale.entries())[name].expires_at_ms == unix_ms(group.expires_at)
    assert await sale.at_rest() == ""


async def test_the_last_payment_forms_the_group(sale):
    name, orders = await sale.team("ann", "bob", "cat")

    assert [await sale.pay(key) for key in orders] == [
        SeatPaid.HELD,
        SeatPaid.HELD,
        SeatPaid.FORMED,
    ]
    group = await sale.group(name)
    assert (group.state, group.seats_paid) == ("formed", 3)
    await sale.settle()
    assert await sale.members() == {}
    assert (await sale.entries())[name].is_shut
    outcome = await sale.shop.click("dan", group=name)
    assert outcome == Refused(PlaceCode.GROUP_FULL)
    events = await sale.shop.rows("SELECT event FROM order_events WHERE event = 'group_formed'")
    assert len(events) == 3
    assert isinstance(await sale.shop.click("ann", group="new"), Accepted)


async def test_two_last_payments_at_the_same_instant_form_it_once(sale):
    for number in range(10):
        name, orders = await sale.team(*(f"{who}-{number}" for who in ("a", "b", "c")))
        await sale.pay(orders[0])
        told_of = await asyncio.gather(*(sale.pay(key) for key in orders[1:]))
        assert sorted(one.name for one in told_of) == ["FORMED", "HELD"]
        assert (await sale.group(name)).seats_paid == SIZE


async def test_a_group_that_is_not_full_in_time_fails_whole(sale):
    name, orders = await sale.team("ann", "bob", "cat")
    await sale.pay(orders[0])
    await sale.pay(orders[1])
    remaining = await sale.shop.remaining()
    await sale.end(name)
    await sale.settle()
    await sale.settle()

    assert (await sale.group(name)).state == "failed"
    assert await sale.states(orders) == ["paid", "paid", "closed"]
    assert await sale.refunds_asked() == 2
    for key in orders[:2]:
        await sale.refund(key)
    await sale.settle()
    assert await sale.states(orders) == ["refunded", "refunded", "closed"]
    assert await sale.shop.remaining() == remaining + 3
    assert (await sale.entries())[name] == (0, unix_ms((await sale.group(name)).expires_at), True)
    assert await sale.members() == {}
    assert await sale.shop.click("dan", group=name) == Refused(PlaceCode.GROUP_EXPIRED)
    assert await sale.at_rest() == ""


async def test_a_payment_after_the_end_is_given_back(sale):
    name, orders = await sale.team("ann", "bob", "cat")
    for key in orders[:2]:
        await sale.pay(key)
    await sale.end(name)
    settler = GroupSettler(sale.shop.shard(), sale.duties, GroupSettings())
    await settler.settle_groups_once()

    assert await sale.pay(orders[2]) is SeatPaid.OVER
    assert await sale.refunds_asked() == 3
    assert (await sale.group(name)).seats_paid == 2


async def test_payment_and_end_at_the_same_instant_leave_no_half_group(sale):
    for number in range(10):
        name, orders = await sale.team(*(f"{who}-{number}" for who in ("a", "b", "c")))
        for key in orders[:2]:
            await sale.pay(key)
        await sale.end(name)
        before = await sale.refunds_asked()
        paid, _ = await asyncio.gather(sale.pay(orders[2]), sale.settle())
        await sale.settle()
        group, asked = await sale.group(name), await sale.refunds_asked() - before
        assert (paid, group.state, asked) in {
            (SeatPaid.FORMED, "formed", 0),
            (SeatPaid.OVER, "failed", 3),
        }
        for key in orders if group.state == "failed" else []:
            await sale.refund(key)
    await sale.settle()
    assert await sale.at_rest() == ""


async def test_an_unpaid_seat_comes_back_and_can_be_taken(sale):
    name, orders = await sale.team("ann", "bob", "cat")
    await sale.cancel(orders[2])
    await sale.settle()

    assert (await sale.group(name)).seats_taken == 2
    assert (await sale.entries())[name].seats == 2
    again = await sale.shop.buy("dan", group=name)
    await sale.shop.flush()
    assert await sale.states([again]) == ["pending"]
    assert await sale.at_rest() == ""


async def test_a_paid_member_who_is_refunded_leaves_an_open_group(sale):
    name, orders = await sale.team("ann", "bob", "cat")
    for key in orders[:2]:
        await sale.pay(key)
    await sale.refund(orders[1])
    await sale.settle()

    group = await sale.group(name)
    assert (group.seats_taken, group.seats_paid, group.state) == (2, 1, "open")
    assert await sale.members() == {"ann": name, "cat": name}
    assert await sale.at_rest() == ""


async def test_a_formed_group_stays_formed_when_an_order_is_refunded(sale):
    name, orders = await sale.team("ann", "bob", "cat")
    for key in orders:
        await sale.pay(key)
    await sale.settle()
    await sale.refund(orders[1])
    await sale.settle()

    assert (await sale.group(name)).state == "formed"
    assert await sale.shop.click("dan", group=name) == Refused(PlaceCode.GROUP_FULL)


async def test_an_order_ships_only_when_its_group_has_formed(sale):
    _, orders = await sale.team("ann", "bob", "cat")
    whole = []
    for key in orders:
        await sale.pay(key)
        async with sale.shop.shard().transaction() as connection:
            order = await lock_order(connection, key)
            whole.append(await is_whole(connection, order))
    assert whole == [False, False, True]


@pytest.mark.parametrize(
    ("policy", "state"), [(LeaderPolicy.HAND_OVER, "open"), (LeaderPolicy.FAIL_GROUP, "failed")]
)
async def test_what_a_leaders_leaving_does_is_the_sales_policy(shop, policy, state):
    sale = GroupSale(shop)
    await sale.open(leader_leaves=policy)
    name, orders = await sale.team("ann", "bob")
    await sale.pay(orders[1])
    await sale.cancel(orders[0])
    await sale.settle()

    assert (await sale.group(name)).state == state
    leader = await shop.value("SELECT leader_seq FROM groups WHERE id = $1", name)
    assert leader == (orders[1] if state == "open" else orders[0]).seq
    assert await sale.refunds_asked() == (0 if state == "open" else 1)


async def test_a_group_that_everybody_has_left_is_over(sale):
    name, orders = await sale.team("ann")
    await sale.cancel(orders[0])
    await sale.settle()

    assert (await sale.group(name)).state == "failed"


async def test_an_order_flushed_into_a_group_that_is_over_closes(sale):
    name, _ = await sale.team("ann")
    late = await sale.shop.buy("bob", group=name)
    await sale.end(name)
    await sale.settle()
    await sale.shop.flush()
    (row,) = (await read_orders(sale.shop.shard(), [late])).values()

    assert (row.state, row.reason) == (OrderState.CLOSING, OrderReason.GROUP_FAILED)
    await sale.settle()
    assert await sale.states([late]) == ["closed"]
    assert await sale.members() == {}
    assert await sale.at_rest() == ""


async def test_a_group_whose_opening_order_is_a_dead_letter_is_over(sale):
    leader, name = await sale.lead("ann")
    joined = await sale.shop.buy("bob", group=name)
    # Another order owns the leader's key: Postgres takes only one of them.
    await sale.shop.execute(
        "ALTER TABLE orders ADD CONSTRAINT no_ann CHECK (shopper <> 'ann') NOT VALID"
    )
    await sale.shop.flush()
    await sale.shop.execute("ALTER TABLE orders DROP CONSTRAINT no_ann")

    assert await read_orders(sale.shop.shard(), [leader]) == {}
    assert (await sale.group(name)).state == "failed"
    await sale.settle()
    assert await sale.states([joined]) == ["closed"]
    assert await sale.members() == {}
    assert await sale.at_rest() == ""


async def test_incomplete_groups_that_fill_one_are_merged(shop):
    sale = GroupSale(shop)
    await sale.open(rescue_seconds=60)
    first, ann_bob = await sale.team("ann", "bob")
    second, cat = await sale.team("cat")
    third, dan = await sale.team("dan")
    for key in (*ann_bob, *cat):
        await sale.pay(key)
    for name, seconds in ((first, 50), (second, 55), (third, 58)):
        await sale.end(name, seconds)
    await sale.settle()

    groups = [await sale.group(name) for name in (first, second, third)]
    assert [group.state for group in groups] == ["formed", "merged", "open"]
    assert groups[1].merged_into == first
    rows = await read_orders(shop.shard(), [*ann_bob, *cat, *dan])
    assert [row.group_id for row in rows.values()] == [first, first, first, third]
    assert await sale.members() == {"dan": third}
    events = await shop.rows("SELECT seq FROM order_events WHERE event = 'group_merged'")
    assert [event["seq"] for event in events] == [cat[0].seq]
    assert (await sale.entries())[first].seats == SIZE
    assert await sale.at_rest() == ""


async def test_a_merged_group_forms_with_the_payment_that_is_left(shop):
    sale = GroupSale(shop)
    await sale.open(rescue_seconds=60)
    first, (ann, bob) = await sale.team("ann", "bob")
    second, (cat,) = await sale.team("cat")
    await sale.pay(ann)
    await sale.pay(bob)
    await sale.end(first, 20)
    await sale.end(second, 30)
    await sale.settle()

    group = await sale.group(first)
    assert (group.state, group.seats_taken, group.seats_paid) == ("open", 3, 2)
    assert group.expires_at == (await sale.group(second)).expires_at
    assert await sale.members() == {"ann": first, "bob": first, "cat": first}
    assert await sale.pay(cat) is SeatPaid.FORMED
    await sale.settle()
    assert await sale.members() == {}
    assert await sale.at_rest() == ""


async def test_nobody_is_merged_before_the_flush_has_passed_the_shutting(shop):
    sale = GroupSale(shop)
    await sale.open(rescue_seconds=60)
    first, _ = await sale.team("ann", "bob")
    second, _ = await sale.team("cat")
    late = await shop.buy("dan", group=second)  # in the stream, in no row
    await sale.end(first, 50)
    await sale.end(second, 50)
    await sale.settle()

    assert [(await sale.group(name)).state for name in (first, second)] == ["open", "open"]
    assert await shop.click("eve", group=first) == Refused(PlaceCode.GROUP_EXPIRED)
    await shop.flush()
    await sale.settle()
    # Two and two fill no group of three: Dan had joined before it was shut.
    assert [(await sale.group(name)).state for name in (first, second)] == ["open", "open"]
    assert (await read_orders(shop.shard(), [late]))[late].group_id == second


async def test_a_rebuild_writes_groups_as_they_were(shop):
    sale = GroupSale(shop)
    await sale.open(rescue_seconds=60)
    formed, orders = await sale.team("ann", "bob", "cat")
    for key in orders:
        await sale.pay(key)
    failed, _ = await sale.team("dan", "eve")
    await sale.end(failed)
    await sale.settle()
    shut, _ = await sale.team("fay")
    await sale.end(shut, 50)
    await sale.settle()
    opened, open_orders = await sale.team("gus", "hal")
    await sale.pay(open_orders[0])
    await shop.move()
    entries, members = await sale.entries(), await sale.members()
    assert set(entries) == {formed, failed, shut, opened}
    await shop.redis.delete(*shop.keys().all)
    await shop.recover(reason="state_missing")

    assert (await shop.lease()).epoch == 2
    assert await sale.entries() == entries
    assert await sale.members() == members == {"fay": shut, "gus": opened, "hal": opened}
    joined = await shop.click("ivy", group=opened)
    assert isinstance(joined, Accepted)
    assert await sale.at_rest() == ""


async def test_repeating_any_step_changes_nothing(sale):
    name, orders = await sale.team("ann", "bob")
    await sale.pay(orders[0])
    await sale.end(name)
    await sale.settle()
    key, shard = sale.key(name), sale.shop.shard()
    moves = await sale.shop.value("SELECT count(*) FROM bucket_moves")
    assert not await fail_group(shard, key)
    await release_group(shard, key)

    assert await sale.shop.value("SELECT count(*) FROM bucket_moves") == moves
    assert await sale.refunds_asked() == 1


async def test_a_closed_bucket_is_told_of_no_seats(sale):
    name, orders = await sale.team("ann", "bob")
    await sale.pay(orders[0])
    assert await sale.shop.close_bucket()
    await sale.end(name)
    await sale.settle()
    await sale.refund(orders[0])
    await sale.settle()

    assert (await sale.group(name)).state == "failed"
    assert await sale.shop.value("SELECT count(*) FROM bucket_moves WHERE state = 'asked'") == 0
    assert await sale.shop.pool() == 30
    assert await sale.at_rest() == ""


BREAKS = """
  UPDATE groups SET seats_paid = 0 -> open groups whose paid seats are not their paid orders
  UPDATE groups SET size = 2; UPDATE orders SET group_id = (SELECT min(id) FROM groups) \
-> groups with more members than seats
  UPDATE orders SET group_id = (SELECT max(id) FROM groups) WHERE shopper = 'bob'; \
UPDATE orders SET shopper = 'ann' WHERE shopper = 'bob' -> shoppers in two open groups of a sale
  UPDATE orders SET group_id = NULL WHERE shopper = 'bob' -> orders of group sales in no group
  UPDATE orders SET pay_by = pay_by + interval '1 day' -> \
members who may pay after the end of their group
  UPDATE orders SET state = 'shipped' WHERE shopper = 'ann' -> \
orders shipped before their group had formed
  UPDATE groups SET state = 'failed', settled_at = now() -> \
paid members of failed groups whom nobody refunds
  UPDATE groups SET state = 'formed', seats_paid = size, settled_at = now() -> \
formed groups that not every seat has paid for
  UPDATE groups SET state = 'formed', seats_paid = size, settled_at = now() -> \
orders in formed groups that may still be paid, or not
  UPDATE orders SET units_held = 0, state = 'closed', reason = 'expired', closed_at = now() \
WHERE shopper = 'bob' -> groups and members whose seats differ from Postgres
"""


@pytest.mark.parametrize("line", BREAKS.replace("\\\n", "").strip().splitlines())
async def test_the_audit_notices(sale, line):
    statement, _, what = line.partition("->")
    _, orders = await sale.team("ann", "bob")
    await sale.team("cat")
    await sale.pay(orders[0])
    assert await sale.at_rest() == ""
    for one in statement.split(";"):
        await sale.shop.execute(one)

    shop = sale.shop
    equations = await audit_groups(shop.shards, shop.redis, shop.deployment)
    assert what.strip() in {one.left for one in equations if one.holds is False}
