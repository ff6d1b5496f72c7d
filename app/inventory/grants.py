"""
Grants: lease rows for new sales, and units from the pool to the buckets.

Runs on the home shard's coordinator. Each step is repeatable; two coordinators
doing it at once grant what one would have granted. Before anybody sells, buckets
get equal shares; later the poorest ones are filled first.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from app.inventory.grant_store import (
    Grant,
    Poolful,
    apply_grant,
    issue_grant,
    issued_grants,
    pools_to_grant,
    settle_grant,
)
from app.inventory.lease_store import insert_leases
from app.inventory.shares import even_shares, level_shares
from app.kernel.errors import ShardUnavailable
from app.kernel.failpoints import failpoint
from app.sales.sale import Sale
from app.sales.store import mark_leased, sales_to_lease
from app.storage.shards import Shard, Shards

Remaining: TypeAlias = Callable[[int], Awaitable[dict[int, int]]]
"""Tell of a sale which of its buckets sell, and how many units each can still sell."""


async def nobody_sells(_sale: int) -> dict[int, int]:
    """Stand in where nothing is known of buckets: they get equal shares."""
    return {}


class Grants:
    """Grants the units of the sales at home on one shard."""

    def __init__(self, home: Shard, shards: Shards, remaining: Remaining = nobody_sells) -> None:
        self._home = home
        self._shards = shards
        self._remaining = remaining

    async def lease_and_grant(self) -> None:
        """
        Write missing lease rows, issue grants, carry issued grants to their buckets.

        A bucket's shard that is away holds up what goes there, and nothing else.

        Raises:
            ShardUnavailable: nothing is lost; units in transit arrive later, once.
        """
        away: list[ShardUnavailable] = []
        unreached: set[Shard] = set()
        for sale in await sales_to_lease(self._home):
            try:
                await self._lease(sale, unreached)
            except ShardUnavailable as error:
                away.append(error)
        for pool in await pools_to_grant(self._home):
            await self._issue(pool)
        for grant in await issued_grants(self._home):
            shard = self._shards.of(grant.sale, grant.bucket)
            if shard in unreached:
                continue
            try:
                await self._carry(grant, shard)
            except ShardUnavailable as error:
                unreached.add(shard)
                away.append(error)
        if away:
            raise away[0]

    async def _lease(self, sale: Sale, unreached: set[Shard]) -> None:
        """Write a sale's lease rows; a shard that did not answer is asked once a pass."""
        shards = [self._shards.of(sale.number, bucket) for bucket in range(sale.buckets)]
        if not unreached.isdisjoint(shards):
            return
        for bucket, shard in enumerate(shards):
            try:
                await insert_leases(shard, sale, bucket, self._home.index)
            except ShardUnavailable:
                unreached.add(shard)
                raise
        failpoint("grants.after_lease")
        await mark_leased(self._home, sale.number)
        failpoint("grants.after_leased")

    async def _carry(self, grant: Grant, shard: Shard) -> None:
        taken = await apply_grant(shard, grant)
        failpoint("grants.after_apply")
        if taken is not None:
            await settle_grant(self._home, grant, taken=taken)
            failpoint("grants.after_settle")

    async def _issue(self, pool: Poolful) -> None:
        remaining = await self._remaining(pool.sale) if pool.buckets > 1 else {}
        shares = (
            level_shares(pool.units, remaining)
            if remaining
            else dict(enumerate(even_shares(pool.units, pool.buckets)))
        )
        for bucket, units in shares.items():
            if units:
                await issue_grant(self._home, pool.sale, bucket, units)
                failpoint("grants.after_issue")
