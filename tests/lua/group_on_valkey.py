"""The keys of a group sale's bucket on a real server."""

from typing import Final

from redis.asyncio import Redis

from app.inventory.seats import GroupEntry
from app.orders.scripts import selling_script
from app.sales.sale import SaleKind
from app.storage.script_connection import ScriptConnection
from tests.lua.bucket_on_valkey import INCARNATION, LEASE_MS, BucketOnValkey

GROUP_SIZE: Final = 3
WINDOW_MS: Final = 600_000


class GroupBucketOnValkey(BucketOnValkey):
    """One epoch of the bucket of a sale with groups of three, open for ten minutes each."""

    def __init__(self, redis: Redis, connection: ScriptConnection, deployment: str) -> None:
        super().__init__(redis, connection, deployment)
        self.script = selling_script(SaleKind.GROUP, INCARNATION)
        self.names = self.keys.in_order(self.script.key_names)

    async def open(self) -> None:
        await super().open()
        await self.change(group_size=GROUP_SIZE, group_window_ms=WINDOW_MS)

    async def renew(self) -> None:
        """Let it sell for another while."""
        await self.change(lease_until_ms=await self.now_ms() + LEASE_MS)

    async def groups(self) -> dict[str, GroupEntry]:
        fields = await self.redis.hgetall(self.keys.groups)
        return {name.decode(): GroupEntry.unpack(packed) for name, packed in fields.items()}

    async def set_group(self, name: str, entry: GroupEntry) -> None:
        """Write a group's entry by hand."""
        await self.redis.hset(self.keys.groups, name, entry.pack())

    async def members(self) -> dict[str, str]:
        """Which group each shopper is in."""
        fields = await self.redis.hgetall(self.keys.members)
        return {shopper.decode(): group.decode() for shopper, group in fields.items()}
