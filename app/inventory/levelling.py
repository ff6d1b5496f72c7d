"""
Levelling: the last units of a sale go where they can be sold.

Runs on the home shard's coordinator after the grants. It only asks for a withdrawal; the mover
takes the units out of Redis, debits the lease and credits the pool, and the next grant fills the
poorest buckets first. Nothing is begun while anything of the sale is still on its way.
"""

import asyncio

from redis.asyncio import Redis

from app.inventory.grant_store import Poolful, sales_to_level
from app.inventory.lease_store import LeasePlace, open_places
from app.inventory.move_store import ask_withdrawal
from app.inventory.picture import read_remaining
from app.inventory.shares import withdrawal_of
from app.kernel.errors import ShardUnavailable, Unavailable
from app.storage.keys import BucketKeys
from app.storage.shards import Shard, Shards


class Levelling:
    """Levels the buckets of the sales at home on one shard."""

    def __init__(self, home: Shard, shards: Shards, redis: Redis, deployment: str) -> None:
        self._home = home
        self._shards = shards
        self._redis = redis
        self._deployment = deployment

    async def level_once(self) -> int:
        """
        Ask one bucket of each sale for units, where another one is sold out.

        Returns:
            Withdrawals asked for.

        Raises:
            ShardUnavailable: the home shard does not answer, or a bucket's shard went
                away meanwhile; call again.
        """
        asked = 0
        for sale in await sales_to_level(self._home):
            asked += await self._level(sale)
        return asked

    async def remaining(self, sale: int) -> dict[int, int]:
        """Tell what each open bucket of a sale can still sell; who does not answer is left out."""
        return await self._remaining(sale, await self._places(sale))

    async def _level(self, sale: Poolful) -> int:
        places = await self._places(sale.sale)
        if any(place.is_changing for place in places.values()):
            return 0
        wanted = withdrawal_of(await self._remaining(sale.sale, places))
        if wanted is None:
            return 0
        epoch = places[wanted.bucket].epoch
        shard = self._shards.of(sale.sale, wanted.bucket)
        await ask_withdrawal(shard, sale.sale, wanted.bucket, epoch, wanted.units)
        return 1

    async def _places(self, sale: int) -> dict[int, LeasePlace]:
        """Read the open buckets of a sale; a shard that is away hides its own."""
        places: dict[int, LeasePlace] = {}
        for shard in self._shards.all:
            try:
                places.update((place.bucket, place) for place in await open_places(shard, sale))
            except ShardUnavailable:
                continue
        return places

    async def _remaining(self, sale: int, places: dict[int, LeasePlace]) -> dict[int, int]:
        async def ask(place: LeasePlace) -> int | None:
            keys = BucketKeys(self._deployment, sale, place.bucket, place.epoch)
            try:
                return await read_remaining(self._redis, keys)
            except Unavailable:
                return None

        told = await asyncio.gather(*map(ask, places.values()))
        return {
            bucket: units for bucket, units in zip(places, told, strict=True) if units is not None
        }
