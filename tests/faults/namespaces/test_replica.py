"""
Row 11: a replica that lags is promoted, or a primary is made a replica and promoted again.

All on loopback. Replication is not durable here (nothing waits for a replica), so orders that the
new primary never heard of are lost, and say so; what the old primary still holds confirms nothing.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.embedded.ports import free_port
from app.embedded.store_notes import StoreNotes
from app.embedded.valkey import ADMIN, API, redis_url, valkey_role
from app.inventory.bucket import Gate, RenewCode, renew_lease
from app.inventory.lease import LEASE_MS
from app.inventory.server import BucketServer
from app.kernel.errors import BadConfiguration, ScriptMissing
from app.orders.order import Order, Ticket, TicketState
from app.orders.selling import NotPlaced
from app.orders.store import read_ticket
from tests.faults.lab.processes import Process
from tests.stores.orders.running_sale import RunningSale, running_sale
from tests.waiting import eventually

pytestmark = pytest.mark.faults


@dataclass
class Node:
    """One Valkey, and a client of it that may do everything."""

    process: Process
    notes: StoreNotes
    client: Redis

    async def follow(self, other: "Node") -> None:
        """Become a replica of another node, and wait until it has what that has."""
        secret = other.notes.redis_admin_password
        await self.client.config_set("masteruser", ADMIN, "masterauth", secret)
        await other.client.config_set("repl-diskless-sync-delay", 0)
        await self.client.replicaof("127.0.0.1", other.notes.valkey_port)
        await eventually(lambda: self.has_all_of(other), within_seconds=30)

    async def promote(self) -> None:
        await self.client.replicaof("NO", "ONE")

    async def has_all_of(self, other: "Node") -> bool:
        mine = await self.client.info("replication")
        theirs = await other.client.info("replication")
        told = mine.get("slave_repl_offset")
        return mine.get("master_link_status") == "up" and told == theirs["master_repl_offset"]


@contextlib.asynccontextmanager
async def a_node(folder: Path, deployment: str) -> AsyncIterator[Node]:
    folder.mkdir()  # noqa: ASYNC240  in a moment
    notes = StoreNotes(valkey_port=free_port())
    process = Process(valkey_role(folder, notes, deployment), folder)
    await process.start()
    client = Redis.from_url(redis_url(notes, ADMIN))
    try:
        yield Node(process, notes, client)
    finally:
        await client.aclose()
        process.stop()


@contextlib.asynccontextmanager
async def a_shop(node: Node, shards, deployment: str) -> AsyncIterator[RunningSale]:
    urls = redis_url(node.notes, ADMIN), redis_url(node.notes, API)
    async with running_sale(shards, *urls, deployment) as opened:
        yield opened


@pytest.fixture
async def pair(tmp_path, deployment) -> AsyncIterator[tuple[Node, Node]]:
    """A primary and its replica."""
    async with (
        a_node(tmp_path / "first", deployment) as primary,
        a_node(tmp_path / "second", deployment) as replica,
    ):
        await replica.follow(primary)
        yield primary, replica


async def test_a_promoted_replica_sells_in_a_new_epoch_and_its_old_primary_confirms_nothing(
    pair, shards, deployment
):
    primary, replica = pair
    async with (
        a_shop(primary, shards, deployment) as old,
        a_shop(replica, shards, deployment) as new,
    ):
        await old.open()
        known = [await old.buy(f"known-{number}") for number in range(3)]
        await eventually(lambda: replica.has_all_of(primary))
        await replica.promote()  # the old primary lives on, apart, and sells while its lease lasts
        lost = [await old.buy(f"lost-{number}") for number in range(2)]

        new.sale = old.sale
        with pytest.raises(ScriptMissing):
            await new.renew()
        opened = await new.recover(last_renewal=time.monotonic())
        assert opened is not None
        assert opened.epoch == 2
        assert await old.click_once("late") is NotPlaced.RECOVERING, "its lease has lapsed"
        await let_go(new)
        assert await old.flush() == 0, "the old primary's stream confirms nothing any more"
        await let_go(old)
        assert [await told_of(new, key) for key in known] == [Order] * 3
        assert [await told_of(new, key) for key in lost] == ["lost_in_recovery"] * 2
        assert await new.remaining() == 7
        assert await new.at_rest() == ""


async def test_a_primary_demoted_resynced_and_promoted_again_gets_a_new_epoch(
    pair, shards, deployment
):
    first, second = pair
    async with a_shop(first, shards, deployment) as shop:
        await shop.open()
        known = [await shop.buy(f"known-{number}") for number in range(3)]
        await eventually(lambda: second.has_all_of(first))
        await second.promote()
        lost = [await shop.buy(f"lost-{number}") for number in range(2)]
        before = await shop.server.identify()
        await first.follow(second)
        await first.promote()
        after = await shop.server.identify()

        assert before.run_id == after.run_id, "the process is the same, and knows the scripts"
        assert await renew_as(shop, before) is RenewCode.OTHER_SERVER
        opened = await shop.recover(last_renewal=time.monotonic())
        assert opened is not None
        assert opened.epoch == 2
        assert [await told_of(shop, key) for key in known] == [Order] * 3
        assert [await told_of(shop, key) for key in lost] == ["lost_in_recovery"] * 2
        assert await shop.remaining() == 7
        assert await shop.at_rest() == ""


async def test_a_server_with_replicas_must_insist_on_one(pair, deployment):
    primary, _ = pair
    server = BucketServer(primary.client, deployment)
    with pytest.raises(BadConfiguration, match="min-replicas-to-write is 0"):
        await server.check_configuration()
    await primary.client.config_set("min-replicas-to-write", 1)
    await server.check_configuration()


async def renew_as(shop, identity):
    """Renew the first epoch's lease as a coordinator that has not noticed anything."""
    answer = await renew_lease(
        shop.redis,
        shop.keys(epoch=1),
        incarnation=identity.incarnation,
        run_id=identity.run_id,
        master_replid=identity.master_replid,
        lease_until_ms=await shop.server.now_ms() + LEASE_MS,
        gate=Gate.OPEN,
    )
    return answer.code


async def let_go(shop):
    """Leave every duty to somebody else."""
    for duties in shop.duties:
        await duties.close()


async def told_of(shop, key):
    """What a shopper hears of an order: its row, or why there is none."""
    found = await read_ticket(shop.shards.of(key.sale, key.bucket), key)
    if isinstance(found, Ticket):
        assert found.state is TicketState.REJECTED
        return found.reason
    return type(found)
