"""Row 5: on a full disk Valkey ends rather than lie; what it acknowledged is all there."""

import shutil

import pytest

from app.embedded.ports import free_port
from app.embedded.store_notes import StoreNotes
from app.embedded.valkey import ADMIN, API, redis_url, valkey_role
from app.orders.order import Order
from app.orders.selling import Accepted
from app.orders.store import read_ticket
from tests.faults.lab.processes import Process
from tests.stores.orders.running_sale import running_sale

DISK_MEGABYTES = 8
LEFT_BYTES = 32_768  # some hundred orders
CLICKS_MAX = 5_000

pytestmark = pytest.mark.faults


async def test_what_was_acknowledged_before_the_disk_was_full_is_recovered(
    small_disk, shards, deployment, tmp_path
):
    folder = tmp_path / "valkey"
    disk = small_disk(folder, DISK_MEGABYTES)
    notes = StoreNotes(valkey_port=free_port())
    spec = valkey_role(folder, notes, deployment)
    shutil.copy(folder / "valkey.conf", disk.seen)
    valkey = Process(disk.inside(spec), tmp_path)
    await valkey.start()
    urls = redis_url(notes, ADMIN), redis_url(notes, API)
    try:
        async with running_sale(shards, *urls, deployment) as shop:
            await shop.open(stock=CLICKS_MAX)
            disk.fill(leave_bytes=LEFT_BYTES)
            accepted = await sell_until_refused(shop)
            assert await valkey.ended(within_seconds=20) != 0, "it says that it cannot go on"
            assert accepted, "the disk was full before anything was sold"

            disk.empty()
            await valkey.start()
            opened = await shop.recover()
            assert opened is not None
            assert opened.epoch == 2
            assert not [key for key in accepted if not await is_there(shop, key)]
            assert await shop.at_rest() == ""
            await shop.buy("after")
    finally:
        valkey.stop()


async def sell_until_refused(shop):
    """Click until there is no acknowledgement; give every order that was acknowledged."""
    accepted = []
    for number in range(CLICKS_MAX):
        if number % 500 == 499:
            await shop.renew()
        outcome = await shop.click_once(f"shopper-{number}")
        if not isinstance(outcome, Accepted):
            return accepted
        accepted.append(outcome.key)
    pytest.fail("the fault did not bite: the disk was never full")


async def is_there(shop, key):
    return isinstance(await read_ticket(shop.shards.of(key.sale, key.bucket), key), Order)
