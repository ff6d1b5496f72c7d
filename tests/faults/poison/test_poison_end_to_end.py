"""
Row 19: poison in a running service becomes letters, everything else flows, operators clear up.

One order that no row can hold is placed past the api, straight through the script; one entry that
nobody can read is added to the stream by hand. Letters are listed and dropped by the command.
"""

import hashlib
import json

import asyncpg
import pytest
from redis.asyncio import Redis

from app.cli.exits import Exit
from app.orders.answers import Placed
from app.orders.stream import PlacementRequest, place_orders, place_orders_script
from app.storage.keys import BucketKeys
from app.storage.script_connection import ScriptConnection
from tests.journeys.service import run_program
from tests.journeys.shop import Promises, visit
from tests.waiting import eventually

SELECT_LEASE = "SELECT sale, bucket, epoch, incarnation FROM bucket_leases WHERE sale_id = $1"


@pytest.fixture
async def shop(service):
    async with visit(service.run) as opened:
        yield opened


async def lease_of(shop, sale):
    """Read the one lease row of a sale, on whichever shard it is."""
    for url in shop.run.shards:
        connection = await asyncpg.connect(url)
        try:
            if (row := await connection.fetchrow(SELECT_LEASE, sale)) is not None:
                return row
        finally:
            await connection.close()
    raise LookupError(sale)


def keys_of(lease):
    return BucketKeys("doorbuster", lease["sale"], lease["bucket"], lease["epoch"])


def wish(shopper, reference=""):
    key_hash = hashlib.sha256(shopper.encode()).digest()[:16]
    return PlacementRequest(key_hash, b"f" * 8, shopper, 1, reference, "")


def letters(service, *command):
    """Run a command on dead letters; give its document."""
    where = ("--json", "--data-dir", str(service.data_dir))
    ended = run_program("dead-letters", *command, *where, cwd=service.data_dir)
    assert ended.returncode == Exit.DONE, ended.stderr
    return json.loads(ended.stdout)


async def one_letter(service, sale):
    """Wait for the letter of a sale."""

    async def look():
        return letters(service, "list", "--sale", sale)["items"]

    (letter,) = await eventually(look, within_seconds=30)
    return letter


async def drop_it(service, sale, letter):
    chosen = ("--letter", letter["letter_id"], "--reason", "seen")
    assert letters(service, "retry", *chosen)["letters"] == 0, "letters of orders are final"
    assert letters(service, "drop", *chosen, "--dry-run")["letters"] == 1
    assert letters(service, "drop", *chosen)["letters"] == 1
    assert letters(service, "list", "--sale", sale)["items"] == []


async def test_an_order_that_no_row_can_hold_is_parked_alone(service, shop):
    sale = await shop.open_sale(stock=10)
    lease = await lease_of(shop, sale)
    script = place_orders_script(lease["incarnation"])
    connection = ScriptConnection(shop.run.redis_api, client_name="poisoner")
    batch = [wish("ann"), wish("bob", "a\0b"), wish("cat")]
    try:
        reply = await place_orders(
            connection, script, keys_of(lease).in_order(script.key_names), batch, timeout_ms=5_000
        )
    finally:
        await connection.close()
    assert [type(answer) for answer in reply.answers] == [Placed] * 3

    letter = await one_letter(service, sale)
    assert (letter["kind"], letter["reason"], letter["units"]) == ("order", "unreadable", 1)
    assert letter["detail"]["sqlstate"] == "22021"
    await shop.until_stock(sale, remaining=8, reserved=2, unflushed=0)
    await drop_it(service, sale, letter)
    await Promises(shop).hold()


async def test_an_entry_that_nobody_can_read_costs_an_epoch_and_nothing_else(service, shop):
    sale = await shop.open_sale(stock=10)
    before = await shop.buy(sale, "ann")
    lease = await lease_of(shop, sale)
    redis = Redis.from_url(shop.run.redis)
    try:
        await redis.xadd(keys_of(lease).orders, {"b": b"junk"})
    finally:
        await redis.aclose()

    await shop.until_sells(sale, epoch_min=lease["epoch"] + 1)
    letter = await one_letter(service, sale)
    assert (letter["kind"], letter["reason"]) == ("order", "unreadable")
    after = await shop.buy(sale, "bob")
    assert before["order_id"] != after["order_id"]
    await shop.until_stock(sale, remaining=8, reserved=2, unflushed=0)
    await drop_it(service, sale, letter)
    await Promises(shop).hold()
