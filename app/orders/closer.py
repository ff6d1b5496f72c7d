"""
The closer: ends orders that were not paid in time, or that nobody wants any more.

Expiry runs from Postgres alone (docs/CORRECTNESS.md §5): the row is truth and timer
in one. A closing order ends only when no payment for it can succeed any more;
that answer comes from a later stage, as a callable.
"""

import asyncio
import enum
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from app.kernel.failpoints import failpoint
from app.kernel.ids import OrderKey
from app.orders.settle_pauses import SettlePauses
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
Unattempted = Callable[[Sequence[OrderKey]], Awaitable[set[OrderKey]]]
"""Say which of these orders, all on one shard, no payment was ever begun for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloserSettings:
    """How unpaid orders end."""

    orders_max: int = 500  # of one pass: bounds the locks held by one transaction
    settle_wait_ms: int = 500  # a pass waits this long for providers, then goes on without them
    settle_pause_ms_min: int = 500  # before providers are asked again about an unknown payment
    settle_pause_ms_max: int = 20_000  # it doubles up to this; an order must end within 60 s (P8)

    def __post_init__(self) -> None:
        assert 1 <= self.orders_max <= 10_000
        assert self.settle_wait_ms > 0
        assert 0 < self.settle_pause_ms_min <= self.settle_pause_ms_max


class Closer:
    """Closes orders of one shard."""

    def __init__(
        self,
        shard: Shard,
        duties: Duties,
        unattempted: Unattempted,
        settle_attempts: SettleAttempts,
        settings: CloserSettings,
    ) -> None:
        self._shard = shard
        self._duties = duties
        self._unattempted = unattempted
        self._settle_attempts = settle_attempts
        self._settings = settings
        self._after = _BEFORE_ALL
        self._pauses = SettlePauses(settings.settle_pause_ms_min, settings.settle_pause_ms_max)
        self._settling: asyncio.Future[dict[OrderKey, AttemptsSettled]] | None = None

    async def close_once(self) -> int:
        """
        Claim what is past its deadline, then end what can be ended.

        Orders without any payment end at once, whatever a provider does meanwhile.
        Those whose payment is still unknown are passed over and come up again when
        the walk through the shard begins anew; their providers are asked again after
        a pause.

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
        if self._after == _BEFORE_ALL:
            self._pauses.forget_ended(_now_ms())
        if not keys and self._settling is None:
            return claimed
        free = await self._unattempted(keys)
        closed = await self._close([key for key in keys if key in free])
        return claimed + closed + await self._settle([key for key in keys if key not in free])

    async def close(self) -> None:
        """Give up asking providers; whoever comes next asks again."""
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)

    async def _settle(self, keys: Sequence[OrderKey]) -> int:
        """Have providers asked about these orders, or hear what came of the last ones."""
        if self._settling is None:
            due = self._pauses.take_due(keys, _now_ms())
            if not due:
                return 0
            self._settling = asyncio.ensure_future(self._settle_attempts(due))
        done, _ = await asyncio.wait([self._settling], timeout=self._settings.settle_wait_ms / 1000)
        if not done:
            return 0
        settling, self._settling = self._settling, None
        settled = settling.result()
        failpoint("closer.after_settle")
        return await self._close(
            [key for key, ended in settled.items() if ended is AttemptsSettled.CLOSED]
        )

    async def _close(self, keys: Sequence[OrderKey]) -> int:
        """End closing orders, bucket by bucket."""
        closed = await asyncio.gather(
            *(
                close_orders(self._shard, sale, bucket, list(group))
                for (sale, bucket), group in itertools.groupby(sorted(keys), lambda key: key[:2])
            )
        )
        failpoint("closer.after_commit")
        return sum(closed)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
