"""
Placement: from a click to an answer.

    click -> the shopper's bucket -> the next batch of its counter -> an outcome

A shopper always comes to the same bucket of a sale, so limit, replay and stock
of one shopper are decided in one place.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from app.kernel.clock import unix_ms
from app.kernel.group_commit import GroupCommit, Waiter
from app.orders.answers import PlaceCode, Refused
from app.orders.route import BucketRoute, Standing
from app.orders.sealing import OrderIds
from app.orders.selling import (
    FULL,
    Accepted,
    BucketCounter,
    NotPlaced,
    Outcome,
    PlacementObserver,
    PlacementSettings,
)
from app.orders.store import find_replays
from app.orders.stream import FINGERPRINT_BYTES, KEY_HASH_BYTES, PlacementRequest
from app.sales.sale import Sale
from app.storage.script_connection import ScriptConnection
from app.storage.server_clock import ServerClock
from app.storage.shards import Shards


class Click(NamedTuple):
    """What a shopper asks for."""

    shopper: str
    idempotency_key: str
    quantity: int
    reference: str = ""
    group: str = ""  # of a group sale: "new", or the name of the group to join


class Placement:
    """Places orders of every sale; one per api process."""

    def __init__(  # noqa: PLR0913, PLR0917  collaborators, each once
        self,
        shards: Shards,
        ids: OrderIds,
        open_connection: Callable[[], ScriptConnection],
        clock: ServerClock,
        deployment: str,
        settings: PlacementSettings,
        observer: PlacementObserver,
    ) -> None:
        self._shards = shards
        self._ids = ids
        self._open_connection = open_connection
        self._clock = clock
        self._deployment = deployment
        self._settings = settings
        self._observer = observer
        self._counters: dict[tuple[int, int], BucketCounter] = {}
        self._archives: dict[tuple[int, int], GroupCommit[PlacementRequest, Outcome]] = {}

    async def place(self, sale: Sale, click: Click) -> Outcome:
        """
        Place one order, or say why not.

        Raises:
            ShardUnavailable: the bucket was never used here and its shard is away.
        """
        request = placement_request(sale, click)
        bucket = bucket_of(click.shopper, sale.buckets)
        counter = self._counters.get((sale.number, bucket)) or self._open(sale.number, bucket)
        if counter.route.current is not None:
            return await counter.sell(request)
        match await counter.route.read_first():
            case Standing.OPEN:
                return await counter.sell(request)
            case Standing.NEVER_OPENED | Standing.UNREAD:
                return Refused(PlaceCode.NOT_OPEN)
            case Standing.DRAINING:
                return NotPlaced.RECOVERING
            case Standing.BROKEN:
                return NotPlaced.BROKEN
            case Standing.CLOSED:
                return await self._archive(sale.number, bucket).put(request)

    def offer(self, sale: Sale, click: Click, waiter: Waiter[Outcome]) -> bool:
        """
        Have one order placed and `waiter` told, if this process sells from its bucket now.

        Returns:
            False if it does not: `place` finds out how things stand.
        """
        counter = self._counters.get((sale.number, bucket_of(click.shopper, sale.buckets)))
        if counter is None or counter.route.current is None:
            return False
        if counter.is_full():
            waiter.set_result(FULL)  # before the request is even made: a refusal must be cheap
        else:
            counter.sell_nowait(placement_request(sale, click), waiter)
        return True

    def is_full(self, sale: Sale) -> bool:
        """Say whether every bucket of a sale has just been found full; see `BucketCounter`."""
        for bucket in range(sale.buckets):
            counter = self._counters.get((sale.number, bucket))
            if counter is None or not counter.is_full():
                return False
        return True

    async def close(self) -> None:
        """Answer everybody that waits, then let go of the connections."""
        for counter in self._counters.values():
            await counter.close()

    def _open(self, sale: int, bucket: int) -> BucketCounter:
        route = BucketRoute(self._shards.of(sale, bucket), self._deployment, sale, bucket)
        connections = [self._open_connection() for _ in range(self._settings.calls_at_once_max)]
        counter = BucketCounter(
            route, self._ids, connections, self._clock, self._settings, self._observer
        )
        self._counters[sale, bucket] = counter
        return counter

    def _archive(self, sale: int, bucket: int) -> GroupCommit[PlacementRequest, Outcome]:
        """Return the queue of look-ups for a bucket that is closed."""
        archive = self._archives.get((sale, bucket))
        if archive is None:

            async def look_up(requests: Sequence[PlacementRequest]) -> Sequence[Outcome]:
                return await self._look_up(sale, bucket, requests)

            archive = GroupCommit(look_up, items_max=self._settings.batch_orders_max)
            self._archives[sale, bucket] = archive
        return archive

    async def _look_up(
        self, sale: int, bucket: int, requests: Sequence[PlacementRequest]
    ) -> Sequence[Outcome]:
        """Answer late clicks from Postgres: replays first, as the script would."""
        wanted = [(request.shopper, request.key_hash) for request in requests]
        found = await find_replays(self._shards.of(sale, bucket), sale, wanted)
        outcomes: list[Outcome] = []
        for request in requests:
            order = found.get((request.shopper, request.key_hash))
            if order is None:
                outcomes.append(Refused(PlaceCode.ENDED))
            elif order.fingerprint != request.fingerprint:
                outcomes.append(Refused(PlaceCode.KEY_MISMATCH))
            else:
                order_id = self._ids.write(order.key, order.shopper)
                placed_at_ms = unix_ms(order.placed_at)
                outcomes.append(
                    Accepted(order.key, order_id, placed_at_ms, is_replay=True, entry_id=b"")
                )
        return outcomes


def bucket_of(shopper: str, buckets: int) -> int:
    """Say which bucket of a sale serves this shopper, always the same."""
    return zlib.crc32(shopper.encode()) % buckets if buckets > 1 else 0


def placement_request(sale: Sale, click: Click) -> PlacementRequest:
    """
    Turn a click into what the script gets.

    The key is scoped to (shopper, sale); the fingerprint covers what was asked
    for and at which price (docs/HOT_PATH.md §3), so that the same key with other
    content is refused.
    """
    key = hashlib.sha256(f"{click.shopper}\n{click.idempotency_key}".encode()).digest()
    content = _fingerprint(sale.number, sale.sku, sale.price_minor, sale.currency, click.quantity)
    if click.group:
        content = hashlib.sha256(content + click.group.encode()).digest()[:FINGERPRINT_BYTES]
    return PlacementRequest(
        key[:KEY_HASH_BYTES],
        content,
        click.shopper,
        click.quantity,
        click.reference,
        click.group,
    )


@lru_cache(maxsize=4_096)  # a sale has as many as quantities that are asked for
def _fingerprint(sale: int, sku: str, price_minor: int, currency: str, quantity: int) -> bytes:
    content = struct.pack(">IQQ", sale, quantity, price_minor) + f"{sku}\n{currency}".encode()
    return hashlib.sha256(content).digest()[:FINGERPRINT_BYTES]
