"""A Valkey of its own is killed: it comes back with its data, or without any."""

import os
import shutil
import signal
from collections.abc import AsyncIterator

import pytest

from app.embedded.stores import EmbeddedStores
from app.inventory.bucket import Gate
from app.kernel.errors import RedisUnavailable
from app.orders.selling import NotPlaced
from tests.stores.orders.running_sale import RunningSale, running_sale
from tests.waiting import eventually


class OwnValkey:
    """A server that the test may kill; whoever supervises it starts it again."""

    def __init__(self, embedded: EmbeddedStores, folder) -> None:
        self.embedded = embedded
        self.folder = folder

    def kill(self) -> None:
        os.kill(self.embedded.pids["valkey"], signal.SIGKILL)

    def lose_everything(self) -> None:
        """Kill it and take its append-only file away before it is back."""
        shutil.rmtree(self.folder / "appendonlydir")
        self.kill()


@pytest.fixture
async def valkey(tmp_path) -> AsyncIterator[OwnValkey]:
    async with EmbeddedStores(tmp_path, "t-*", with_postgres=False) as embedded:
        yield OwnValkey(embedded, tmp_path / "valkey")


@pytest.fixture
async def sold(shards, deployment, valkey) -> AsyncIterator[RunningSale]:
    """Ten units: ann has two, flushed; bob has one, only in the stream."""
    url, api_url = valkey.embedded.redis_url, valkey.embedded.redis_api_url
    async with running_sale(shards, url, api_url, deployment) as shop:
        await shop.open()
        await shop.buy("ann", 2, key="k-ann")
        await shop.flush()
        await shop.buy("bob", key="k-bob")
        yield shop


async def reopen(shop):
    """Let one coordinator see to it that the bucket sells again; say why it had to."""
    coordinator = shop.new_coordinator(shop.shard())
    openings = len(shop.notes.opened)

    async def is_selling():
        try:
            await coordinator.coordinate_once()
            state = await shop.state()
        except RedisUnavailable:
            return False
        lease = await shop.lease()
        # A server may be back before the coordinator has missed it; its old gate is open still.
        opened_again = len(shop.notes.opened) > openings
        selling = state is not None and state.gate is Gate.OPEN
        return opened_again and lease.state == "open" and selling

    async with shop.flushing():
        await eventually(is_selling, within_seconds=30)
    await coordinator.close()
    return shop.notes.opened[-1]


async def test_a_server_that_was_killed_sells_again_in_a_new_epoch_and_loses_nothing(sold, valkey):
    incarnation = (await sold.lease()).incarnation
    valkey.kill()
    assert await sold.click_once("cat") in {NotPlaced.RECOVERING, NotPlaced.UNKNOWN}

    assert await reopen(sold) == (2, "other_server")
    assert (await sold.lease()).incarnation != incarnation
    assert sold.notes.alarms == []
    assert await sold.remaining() == 7
    again = [await sold.buy("ann", 2, key="k-ann"), await sold.buy("bob", key="k-bob")]
    assert [(key.epoch, key.seq) for key in again] == [(1, 0), (1, 1)]
    await sold.buy("cat")
    assert await sold.at_rest() == ""


async def test_a_server_that_comes_back_empty_is_rebuilt_from_postgres_alone(sold, valkey):
    valkey.lose_everything()

    assert await reopen(sold) == (2, "other_server")
    assert sold.notes.alarms == ["redis_state_lost"]
    assert await sold.remaining() == 8
    assert (await sold.buy("ann", 2, key="k-ann")).epoch == 1
    assert (await sold.buy("bob", key="k-bob")).epoch == 2
    assert await sold.at_rest() == ""
