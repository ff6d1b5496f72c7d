"""A bucket filled by the service's own script and flusher, but a thousand orders at a time."""

import hashlib
import itertools
import time
from collections.abc import Iterator

from app.inventory.bucket import RenewCode
from app.orders.answers import PlaceCode, Placed, Refused
from app.orders.stream import (
    BATCH_ORDERS_MAX,
    KEY_HASH_BYTES,
    PlacementRequest,
    place_orders,
    place_orders_script,
)
from app.storage.script_connection import ScriptConnection
from tests.stores.orders.running_sale import RunningSale

CALL_MS = 30_000  # a machine that does other things must not spoil a batch
BACKLOG_FULL = Refused(PlaceCode.BACKLOG_FULL)
LEASE_FRESH_SECONDS = 1.0


def wish(number: int) -> PlacementRequest:
    """One unit for a shopper of its own; the number decides everything."""
    shopper = f"shopper-{number:06}"
    key_hash = hashlib.sha256(f"{shopper}\nkey".encode()).digest()[:KEY_HASH_BYTES]
    return PlacementRequest(key_hash, b"\0" * 7 + b"\1", shopper, 1)


def batches(first: int, last: int) -> Iterator[list[PlacementRequest]]:
    wishes = map(wish, range(first, last))
    while batch := list(itertools.islice(wishes, BATCH_ORDERS_MAX)):
        yield batch


async def fill(shop: RunningSale, url: str, first: int, last: int) -> int:
    """
    Place the orders `first` to `last` (not included) in the sale's one bucket.

    Returns:
        How many were placed: all, or as many as came before BACKLOG_FULL.
    """
    placed = 0
    lease = await shop.lease()
    assert lease.incarnation is not None
    script = place_orders_script(lease.incarnation)
    names = shop.keys(0, lease.epoch).in_order(script.key_names)
    connection = ScriptConnection(url, client_name="test-fill", connect_timeout_ms=5_000)
    renewed_at = 0.0
    try:
        for batch in batches(first, last):
            if time.monotonic() - renewed_at > LEASE_FRESH_SECONDS:
                assert await shop.renew() in {RenewCode.RENEWED, RenewCode.ALREADY}
                renewed_at = time.monotonic()
            reply = await place_orders(connection, script, names, batch, timeout_ms=CALL_MS)
            taken = sum(isinstance(answer, Placed) for answer in reply.answers)
            placed += taken
            if taken < len(batch):
                others = {one for one in reply.answers if not isinstance(one, Placed)}
                assert others == {BACKLOG_FULL}
                break
    finally:
        await connection.close()
    return placed
