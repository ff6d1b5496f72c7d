"""What the clock does to paid orders of one shard while another is away."""

import pytest

from app.fulfilment.addresses import Addresses
from app.fulfilment.after_sale import Parcel
from app.fulfilment.delivery import tidy_delivery
from app.fulfilment.parcels import Outcome, Parcels
from app.kernel.errors import ShardUnavailable
from app.storage.shards import DatabaseSettings, Shards

NOBODY_THERE = "postgresql://nobody@127.0.0.1:9/nothing"
HOME = tidy_delivery("Ann Lee", "+14155550100", "1 Main St")


@pytest.fixture
async def half(scene, shard_urls):
    """The first shard is away; the sale of the scene lives on the second."""
    assert scene.shards.map.home(1) == 1
    shards = Shards([NOBODY_THERE, shard_urls[1]], DatabaseSettings())
    assert len(await shards.read_map()) == 1
    yield shards
    await shards.close()


async def test_the_clock_confirms_receipts_on_the_shards_that_answer(scene, half):
    await scene.policy()
    key = await scene.paid()
    parcel = Parcel(carrier="SF", tracking_number="SF1")
    assert await scene.parcels.ship(key, parcel, "test") is Outcome.DONE
    await scene.desk.execute(
        "UPDATE order_shipments SET shipped_at = now() - interval '1 minute',"
        " confirm_by = now() - interval '1 second'"
    )

    with pytest.raises(ShardUnavailable):
        await Parcels(half).confirm_overdue_once(10)

    assert (await scene.events(key))[-1] == "received"


async def test_fields_are_sealed_anew_on_the_shards_that_answer(scene, half):
    key = await scene.desk.place()
    await scene.addresses.change(key, HOME, actor="shopper")
    seals = scene.addresses_with("b:seal", "a:open").seals

    with pytest.raises(ShardUnavailable):
        await Addresses(half, seals).reseal_once(10)

    assert await scene.addresses_with("b:seal").find(key) == HOME
