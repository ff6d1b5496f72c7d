"""
The closer: ends orders that were not paid in time, or that nobody wants any more.

Expiry runs from Postgres alone (docs/CORRECTNESS.md §5): the row is truth and timer
in one. A closing order ends only when no payment for it can succeed any more;
that answer comes from a later stage, as a callable.
"""

import asyncio
import enum
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.orders.store import claim_expired, close_orders, closing_orders
from app.storage.duties import Duties
from app.storage.shards import LockPurpose, Shard

_BEFORE_ALL: Final = OrderKey(0, 0, 0, 0)


class AttemptsSettled(enum.Enum):
    """What became of an order's payment attempts when it was to be closed."""

    CLOSED = enum.auto()  # none can succeed any more
    PAID = enum.auto()  # one has; the order is paid
    UNKNOWN = enum.auto()  # ask again; the units stay held


SettleAttempts = Callable[[Sequence[OrderKey]], Awaitable[dict[OrderKey, AttemptsSettled]]]
"""Close and query every open attempt of these orders, all on one shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloserSettings:
    """How unpaid orders end."""

    orders_max: int = 500  # of one pass: bounds the locks held by one transaction

    def __post_init__(self) -> None:
        assert 1 <= self.orders_max <= 10_000


class Closer:
    """Closes orders of one shard."""

    def __init__(
        self,
        shard: Shard,
        duties: Duties,
        settle_attempts: SettleAttempts,
        settings: CloserSettings,
    ) -> None:
        self._shard = shard
        self._duties = duties
        self._settle_attempts = settle_attempts
        self._settings = settings
        self._after = _BEFORE_ALL

    async def close_once(self) -> int:
        """
        Claim what is past its deadline, then end what can be ended.

        Orders whose payment is still unknown are passed over and come up again
        when the walk through the shard begins anew.

        Returns:
            Orders claimed or closed.

        Raises:
            ShardUnavailable: nothing is lost; call again.
        """
        if not await self._duties.has(LockPurpose.CLOSE):
            return 0
        orders_max = self._settings.orders_max
        claimed = await claim_expired(self._shard, orders_max)
        if claimed:
            failpoint("closer.after_claim")
        keys = await closing_orders(self._shard, self._after, orders_max)
        self._after = keys[-1] if len(keys) == orders_max else _BEFORE_ALL
        if not keys:
            return claimed
        settled = await self._settle_attempts(keys)
        failpoint("closer.after_settle")
        ended = [key for key in keys if settled.get(key) is AttemptsSettled.CLOSED]
        closed = await asyncio.gather(
            *(
                close_orders(self._shard, sale, bucket, list(group))
                for (sale, bucket), group in itertools.groupby(ended, lambda key: key[:2])
            )
        )
        failpoint("closer.after_commit")
        return claimed + sum(closed)
