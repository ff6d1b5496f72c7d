"""
Orders without an api process: the service's own `place_orders`, called with whole batches.

What an order costs Valkey, the worker and Postgres does not depend on who made the batch. A sale
that is fed grows to a million orders in a fraction of the time that as many clicks take.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.embedded.stores import DEPLOYMENT
from app.inventory.lease_store import read_lease
from app.orders.answers import Placed
from app.orders.placement import bucket_of
from app.orders.stream import (
    FINGERPRINT_BYTES,
    KEY_HASH_BYTES,
    PlacementRequest,
    place_orders,
    place_orders_script,
)
from app.storage.keys import BucketKeys
from app.storage.lua import BoundScript
from app.storage.script_connection import ScriptConnection
from loadtest.bench.stand import BUCKETS, NotMeasured, OpenSale, Stand

BATCH_ORDERS: Final = 32  # about what 256 connections fill over two processes and two buckets
REFUSED: Final = "a fed order was not placed"
_CALL_TIMEOUT_MS: Final = 5_000
_FINGERPRINT: Final = bytes(FINGERPRINT_BYTES)


@dataclass(frozen=True, slots=True)
class _Till:
    """One bucket that is fed."""

    bucket: int
    connection: ScriptConnection
    script: BoundScript
    names: Sequence[bytes]

    async def sell(self, requests: Sequence[PlacementRequest]) -> None:
        for first in range(0, len(requests), BATCH_ORDERS):
            some = requests[first : first + BATCH_ORDERS]
            reply = await place_orders(
                self.connection, self.script, self.names, some, timeout_ms=_CALL_TIMEOUT_MS
            )
            refused = [one for one in reply.answers if not isinstance(one, Placed)]
            if refused:
                raise NotMeasured(REFUSED, answer=refused[0], bucket=self.bucket)


class Feed:
    """Sells from every bucket of a sale, to shoppers who come once each."""

    def __init__(self, sale: OpenSale, tills: Sequence[_Till]) -> None:
        self._sale = sale
        self._tills = tills
        self.placed = 0

    async def sell(self, count: int) -> float:
        """
        Place so many orders, all buckets at once.

        Returns:
            Seconds it took, the making of the orders left out.

        Raises:
            NotMeasured: an order was refused.
        """
        by_bucket: list[list[PlacementRequest]] = [[] for _ in self._tills]
        for number in range(self.placed, self.placed + count):
            request = _request(f"{self._sale.id}-f{number:07d}", number)
            by_bucket[bucket_of(request.shopper, len(self._tills))].append(request)
        began = time.monotonic()
        await asyncio.gather(
            *(till.sell(some) for till, some in zip(self._tills, by_bucket, strict=True))
        )
        self.placed += count
        return time.monotonic() - began


@asynccontextmanager
async def feeding(stand: Stand, sale: OpenSale) -> AsyncGenerator[Feed]:
    """Open a connection to each bucket of a sale that takes orders."""
    tills = [await _open_till(stand, sale, bucket) for bucket in range(BUCKETS)]
    try:
        yield Feed(sale, tills)
    finally:
        for till in tills:
            await till.connection.close()


async def _open_till(stand: Stand, sale: OpenSale, bucket: int) -> _Till:
    lease = await read_lease(stand.shards.of(sale.number, bucket), sale.number, bucket)
    assert lease is not None
    assert lease.incarnation is not None
    script = place_orders_script(lease.incarnation)
    keys = BucketKeys(DEPLOYMENT, sale.number, bucket, lease.epoch)
    connection = ScriptConnection(stand.run.redis_api, client_name="bench-feed")
    return _Till(bucket, connection, script, keys.in_order(script.key_names))


def _request(shopper: str, number: int) -> PlacementRequest:
    key = hashlib.sha256(f"{shopper}\n{number:032x}".encode()).digest()[:KEY_HASH_BYTES]
    return PlacementRequest(key, _FINGERPRINT, shopper, 1)
