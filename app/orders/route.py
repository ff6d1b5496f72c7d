"""
The route to a bucket: whether, where and with which script this process may sell.

Read from the bucket's lease row at first use, and again every 200 ms or so after
the server or the script has said that it is not so any more. Nothing is sent to
a bucket that is not open.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from app.inventory.lease import BucketMode, Lease
from app.inventory.lease_store import read_lease
from app.kernel.errors import ShardUnavailable
from app.kernel.ids import OrderKey
from app.orders.answers import Placed, Replay
from app.orders.scripts import selling_script
from app.storage.keys import BucketKeys
from app.storage.lua import BoundScript
from app.storage.shards import Shard

_LOOK_SECONDS: Final = (0.150, 0.250)  # 200 ms ± 50: processes do not ask in step


class Standing(Enum):
    """How a bucket stands, as far as this process knows."""

    UNREAD = auto()
    NEVER_OPENED = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()
    BROKEN = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """An open epoch of a bucket, and how to call its script."""

    epoch: int
    script: BoundScript
    names: Sequence[bytes]


class BucketRoute:
    """Keeps the route to one bucket."""

    def __init__(self, shard: Shard, deployment: str, sale: int, bucket: int) -> None:
        self.shard = shard
        self.standing = Standing.UNREAD
        self.current: Route | None = None
        self._deployment = deployment
        self._sale = sale
        self._bucket = bucket
        self._broken_epoch = -1
        self._looking: asyncio.Task[None] | None = None
        self._first_look: asyncio.Task[None] | None = None

    @property
    def name(self) -> tuple[int, int]:
        """Which bucket it leads to."""
        return (self._sale, self._bucket)

    async def read_first(self) -> Standing:
        """
        Say how the bucket stands, reading the lease row if nobody has yet.

        Raises:
            ShardUnavailable: never read before, and the shard does not answer.
        """
        if self.standing is Standing.UNREAD:
            await asyncio.shield(self._look_together())
        if self.standing is not Standing.OPEN:
            self._keep_looking()
        return self.standing

    def key_of(self, route: Route, answer: Placed | Replay) -> OrderKey:
        """Return the key of an order that the script accepted, now or in an earlier epoch."""
        epoch = route.epoch if isinstance(answer, Placed) else answer.epoch
        return OrderKey(self._sale, self._bucket, epoch, answer.seq)

    def distrust(self, route: Route) -> None:
        """Stop selling on a route that the server does not know; look for the next one."""
        if self.current is route:
            self.current = None
            self.standing = Standing.DRAINING
            self._keep_looking()

    def mark_broken(self, route: Route) -> None:
        """Stop selling from this epoch for good: its state cannot be (fail closed)."""
        self._broken_epoch = route.epoch
        if self.current is route:
            self.current = None
            self.standing = Standing.BROKEN
            self._keep_looking()

    async def close(self) -> None:
        """Stop looking."""
        looks = [look for look in (self._first_look, self._looking) if look is not None]
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    def _look_together(self) -> asyncio.Task[None]:
        """Give everybody who is here before the first look the same one, and wake them at once."""
        if self._first_look is None or self._first_look.done():
            self._first_look = asyncio.get_running_loop().create_task(self._look())
        return self._first_look

    def _keep_looking(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_until_open())

    async def _look_until_open(self) -> None:
        while self.standing not in {Standing.OPEN, Standing.CLOSED}:
            await asyncio.sleep(random.uniform(*_LOOK_SECONDS))  # noqa: S311  jitter
            try:
                await self._look()
            except ShardUnavailable:
                continue

    async def _look(self) -> None:
        lease = await read_lease(self.shard, self._sale, self._bucket)
        self.standing = self._standing_of(lease)
        self.current = None
        if self.standing is Standing.OPEN:
            assert lease is not None
            self.current = self._route_of(lease)

    def _standing_of(self, lease: Lease | None) -> Standing:
        if lease is None or lease.epoch == 0:
            return Standing.NEVER_OPENED
        match lease.state:
            case BucketMode.CLOSED:
                return Standing.CLOSED
            case BucketMode.DRAINING:
                return Standing.DRAINING if lease.was_opened else Standing.NEVER_OPENED
            case BucketMode.OPEN:
                is_broken = lease.epoch == self._broken_epoch
                return Standing.BROKEN if is_broken else Standing.OPEN

    def _route_of(self, lease: Lease) -> Route:
        assert lease.incarnation is not None
        script = selling_script(lease.kind, lease.incarnation)
        keys = BucketKeys(self._deployment, self._sale, self._bucket, lease.epoch)
        return Route(lease.epoch, script, keys.in_order(script.key_names))
