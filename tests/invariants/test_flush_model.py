"""
Random lives of a sale on both stores, by the service's own functions.

Nothing is compared with a model here: whatever happened, in whatever order, once
everybody has finished what was under way, the audit must find nothing.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.inventory.move_store import ask_withdrawal
from app.kernel.ids import OrderKey
from app.orders.order import OrderReason, Ticket, TicketState
from app.orders.selling import Accepted
from app.orders.store import ask_to_close, close_orders, mark_paid, read_ticket
from app.storage.shards import DatabaseSettings, Shards
from tests.real_stores import RealStores
from tests.stores.orders.running_sale import RunningSale, running_sale

T = TypeVar("T")

STOCK: Final = 6
LIMIT: Final = 2
SHOPPERS: Final = ("ann", "bob", "cat", "dan")
EXPIRE: Final = """
UPDATE orders SET placed_at = opens.at, pay_by = now() - interval '1 s'
FROM (SELECT max(opens_at) AS at FROM bucket_leases) opens
WHERE seq = $1 AND epoch = $2 AND state = 'pending'"""


class SaleMachine(RuleBasedStateMachine):
    """Everybody who touches a sale, in any order."""

    stores: RealStores

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._opened = contextlib.AsyncExitStack()
        self._told: dict[OrderKey, str] = {}  # every ticket ever given out, and to whom
        self._clicks: dict[str, tuple[str, int, OrderKey]] = {}  # key -> who asked for what, got
        self._lost = False
        self.shop: RunningSale

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(act)

    @initialize(buckets=st.sampled_from([1, 1, 2]))
    def open(self, buckets: int) -> None:
        self.run(self._open(buckets))

    async def _open(self, buckets: int) -> None:
        stores = self.stores
        deployment = stores.new_deployment()
        urls = self._opened.enter_context(stores.fresh_shards(deployment))
        shards = Shards(urls, DatabaseSettings(connections_max=4))
        await shards.read_map()
        self._opened.push_async_callback(shards.close)
        self.shop = await self._opened.enter_async_context(
            running_sale(shards, stores.redis_url, stores.redis_api_url, deployment)
        )
        await self.shop.open(stock=STOCK, limit_per_shopper=LIMIT, buckets=buckets)

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            try:
                self.run(self._judge())
            finally:
                self.run(self._opened.aclose())
        self._runner.close()

    async def _judge(self) -> None:
        """Let everybody finish, then every promise holds and every ticket has its answer."""
        for bucket in range(self.shop.sale.buckets):
            if (await self.shop.lease(bucket)).recover_reason is not None:
                await self.shop.recover(bucket)
        assert await self.shop.at_rest() == ""
        for key, shopper in self._told.items():
            found = await read_ticket(self.shop.shard(key.bucket), key)
            assert found is not None
            if isinstance(found, Ticket):
                assert self._lost, found
                assert found.state is TicketState.REJECTED
            else:
                assert found.shopper == shopper

    @rule(
        shopper=st.sampled_from(SHOPPERS),
        quantity=st.integers(1, LIMIT + 1),
        key=st.integers(0, 9),
    )
    def place(self, shopper: str, quantity: int, key: int) -> None:
        name = f"{shopper}-{key}"
        outcome = self.run(self.shop.click(shopper, quantity, key=name))
        if isinstance(outcome, Accepted):
            known = self._clicks.setdefault(name, (shopper, quantity, outcome.key))
            assert self._lost or known == (shopper, quantity, outcome.key)
            self._told[outcome.key] = shopper

    @rule(shoppers=st.lists(st.sampled_from(SHOPPERS), min_size=2, max_size=6))
    def rush(self, shoppers: list[str]) -> None:
        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*(self.shop.click(shopper) for shopper in shoppers))

        for shopper, outcome in zip(shoppers, self.run(all_at_once()), strict=True):
            if isinstance(outcome, Accepted):
                self._told[outcome.key] = shopper

    @rule()
    def flush(self) -> None:
        self.run(self.shop.flush())

    @rule()
    def move(self) -> None:
        self.run(self.shop.move())

    @rule()
    def rest(self) -> None:
        """Let everybody finish what is under way: then everything adds up, at any time."""
        assert self.run(self.shop.at_rest()) == ""

    @precondition(lambda self: self._told)
    @rule(data=st.data())
    def pay(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self._told)))

        async def capture() -> None:
            async with self.shop.shard(key.bucket).transaction() as connection:
                await mark_paid(connection, key, datetime.now(UTC), actor="test", detail={})

        self.run(capture())

    @precondition(lambda self: self._told)
    @rule(data=st.data(), ends=st.booleans())
    def cancel(self, data: st.DataObject, *, ends: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self._told)))

        async def ask() -> None:
            shard = self.shop.shard(key.bucket)
            async with shard.transaction() as connection:
                await ask_to_close(
                    connection, key, OrderReason.CANCELLED_BY_SHOPPER, actor="shopper"
                )
            if ends:
                await close_orders(shard, key.sale, key.bucket, [key])

        self.run(ask())

    @precondition(lambda self: self._told)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self._told)))
        self.run(self.shop.execute(EXPIRE, key.seq, key.epoch, bucket=key.bucket))
        self.run(self.shop.close_orders())

    @rule(units=st.integers(1, 3), arrives=st.booleans())
    def restock(self, units: int, *, arrives: bool) -> None:
        self.run(self.shop.restock(units))
        if arrives:
            self.run(self.shop.grant())

    @rule(units=st.integers(1, 3))
    def withdraw(self, units: int) -> None:
        lease = self.run(self.shop.lease())
        shard = self.shop.shard()
        self.run(ask_withdrawal(shard, lease.sale, 0, epoch=lease.epoch, units=units))

    @rule(bucket=st.integers(0, 1))
    def begin_epoch(self, bucket: int) -> None:
        self.run(self.shop.recover(bucket % self.shop.sale.buckets))

    @precondition(lambda self: self._told)
    @rule()
    def lose_the_log(self) -> None:
        """The disk of Redis is gone: what was not flushed may be lost, nothing else."""
        self._lost = True

        async def lose() -> None:
            lease = await self.shop.lease()
            await self.shop.redis.delete(*self.shop.keys(epoch=lease.epoch).all)
            await self.shop.recover()

        self.run(lose())


def test_whatever_happens_the_audit_finds_nothing(stores: RealStores) -> None:
    SaleMachine.stores = stores
    run_state_machine_as_test(
        SaleMachine,
        settings=settings(
            max_examples=6,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
