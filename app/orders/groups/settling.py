"""
The settler of groups: fails them at their end, lets go of their members, rescues what fits.

Forming is not its business: the payment of the last seat does that. Each pass is bounded and
goes by the rows alone, so a crash anywhere is a repeat. Who ends the orders of a shard ends its
groups: it shares the closer's duty.
"""

from dataclasses import dataclass

from app.kernel.failpoints import failpoint
from app.orders.groups.group import plan_merges
from app.orders.groups.store import (
    claim_expired_groups,
    fail_group,
    failing_groups,
    groups_to_release,
    groups_to_shut,
    judge_leaderless_groups,
    merge_groups,
    release_group,
    rescuable_groups,
    shut_group,
)
from app.storage.duties import Duties
from app.storage.shards import LockPurpose, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """How groups end."""

    groups_max: int = 500  # of one step of a pass

    def __post_init__(self) -> None:
        assert 1 <= self.groups_max <= 10_000


class GroupSettler:
    """Settles the groups of one shard."""

    def __init__(self, shard: Shard, duties: Duties, settings: GroupSettings) -> None:
        self._shard = shard
        self._duties = duties
        self._settings = settings

    async def settle_groups_once(self) -> int:
        """
        Bring every group that is due one step further.

        Returns:
            Groups that came further.

        Raises:
            ShardUnavailable: nothing is lost; call again.
        """
        if not await self._duties.has(LockPurpose.CLOSE):
            return 0
        settled = await self._rescue()
        settled += await self._give_up()
        return settled + await self._release()

    async def _rescue(self) -> int:
        """Merge incomplete groups that together fill one; shut first those whose time comes."""
        shut = await groups_to_shut(self._shard, self._settings.groups_max)
        for key in shut:
            await shut_group(self._shard, key)
            failpoint("groups.after_shut")
        merged = 0
        incomplete = await rescuable_groups(self._shard, self._settings.groups_max)
        for (sale, bucket, size), groups in incomplete.items():
            for merge in plan_merges(groups, size):
                merged += await merge_groups(self._shard, sale, bucket, merge)
                failpoint("groups.after_merge")
        return len(shut) + merged

    async def _give_up(self) -> int:
        """Fail groups whose time is over or whose leader's policy says so."""
        groups_max = self._settings.groups_max
        judged = await judge_leaderless_groups(self._shard, groups_max)
        judged += await claim_expired_groups(self._shard, groups_max)
        if judged:
            failpoint("groups.after_claim")
        failing = await failing_groups(self._shard, groups_max)
        for key in failing:
            await fail_group(self._shard, key)
            failpoint("groups.after_failed")
        return judged + len(failing)

    async def _release(self) -> int:
        """Tell Redis of groups that are over."""
        over = await groups_to_release(self._shard, self._settings.groups_max)
        for key in over:
            await release_group(self._shard, key)
            failpoint("groups.after_release")
        return len(over)
