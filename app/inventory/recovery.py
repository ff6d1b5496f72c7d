"""
Recovery: how a bucket gets a new epoch, and how it closes. Fail closed.

Fence the old epoch, drain what survived of its stream by the normal flush, take
the next epoch and read what it must hold in one transaction, write its keys,
let it sell. Every attempt takes a new epoch; nobody resumes into one that
another process may have begun to write. A first opening is the same walk with
nothing to fence and nothing to drain. The rules are docs/HOT_PATH.md §7.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final, Protocol

from app.inventory.bucket import FenceAnswer, FenceCode, fence_bucket
from app.inventory.epoch_keys import forget_epochs, write_epoch
from app.inventory.lease import LAPSE_MS, Lease, ServerIdentity, is_of
from app.inventory.lease_store import (
    begin_draining,
    begin_epoch,
    close_bucket,
    open_epoch,
    read_lease,
)
from app.inventory.picture import Offset, take_picture
from app.inventory.server import BucketServer
from app.kernel.errors import BucketRecovering
from app.kernel.failpoints import failpoint
from app.kernel.ids import EPOCH_MAX
from app.storage.keys import BucketKeys
from app.storage.lua import load_scripts
from app.storage.shards import Shard

EPOCH_ALARM: Final = 3_500  # of 4 095: time to end the sale (docs/HOT_PATH.md §7)
OPERATOR_NOW: Final = "operator_now"
_FORGET_EPOCHS: Final = 8  # how far back keys of failed attempts are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverySettings:
    """How long recovery waits, and for what."""

    backlog_orders_max: int = 200_000  # placed but not flushed; beyond it BACKLOG_FULL
    lost_wait_ms: int = 30_000  # for the registered server to come back when all keys are gone
    drain_wait_ms: int = 60_000  # for the flush to finish the old epoch, then try again
    poll_ms: int = 50  # between looks at the lease row while it drains

    def __post_init__(self) -> None:
        assert self.backlog_orders_max >= 1
        assert 0 < self.poll_ms <= self.drain_wait_ms


class RecoveryObserver(Protocol):
    """Who hears of epochs: telemetry."""

    def epoch_opened(self, lease: Lease, reason: str, seconds: float) -> None:
        """Note a bucket that sells again, or for the first time."""
        ...

    def redis_state_lost(self, lease: Lease) -> None:
        """Raise the alarm: every key of a bucket is gone."""
        ...

    def epochs_run_out(self, lease: Lease) -> None:
        """Raise the alarm: few epochs are left for this bucket."""
        ...

    def bucket_closed(self, lease: Lease) -> None:
        """Note the end of a bucket."""
        ...


class Recovery:
    """Opens, recovers and closes the buckets of one shard on one server."""

    def __init__(
        self,
        shard: Shard,
        server: BucketServer,
        deployment: str,
        settings: RecoverySettings,
        observer: RecoveryObserver,
    ) -> None:
        self._shard = shard
        self._server = server
        self._deployment = deployment
        self._settings = settings
        self._observer = observer

    async def open_new_epoch(
        self, lease: Lease, reason: str, last_renewal: float, script_path: str
    ) -> Lease | None:
        """
        Give a bucket its next epoch.

        Args:
            lease: the row as the coordinator saw it.
            reason: why, for the log and the metrics.
            last_renewal: monotonic seconds of the last renewal sent to the bucket.
            script_path: of the script that sells; its SHA goes to the lease row.

        Returns:
            The open lease, or None if somebody else has moved the bucket on.

        Raises:
            BucketRecovering: not now; try again with a growing pause.
            RedisUnavailable, OutcomeUnknown, ShardUnavailable: likewise.
        """
        began = time.monotonic()
        server = await self._ready_server()
        draining = await begin_draining(self._shard, lease)
        if draining is None:
            return None
        if draining.epoch >= EPOCH_MAX - 1:  # the last one is kept for the bucket's end
            self._observer.epochs_run_out(draining)
            raise BucketRecovering(bucket=draining.name, why="no epoch is left: close the sale")
        failpoint("recovery.after_draining")
        hashes = await load_scripts(self._server.redis, server.incarnation)
        failpoint("recovery.after_load")
        await self._fence_and_drain(draining, server, last_renewal)
        rebuild = await begin_epoch(self._shard, draining)
        if rebuild is None:
            return None
        failpoint("recovery.after_epoch")
        fresh = rebuild.lease
        await write_epoch(
            self._server.redis,
            self._keys(fresh),
            rebuild,
            incarnation=server.incarnation,
            backlog_max=self._settings.backlog_orders_max,
        )
        failpoint("recovery.after_write")
        opened = await open_epoch(self._shard, fresh, server, hashes[script_path])
        if opened is not None:
            failpoint("recovery.after_open")
            await self._forget_older(opened)
            failpoint("recovery.after_forget")
            self._observer.epoch_opened(opened, reason, time.monotonic() - began)
            if opened.epoch >= EPOCH_ALARM:
                self._observer.epochs_run_out(opened)
        return opened

    async def close(self, lease: Lease, last_renewal: float) -> bool:
        """
        End a bucket: fence, drain, hand what is unsold back to the pool.

        Returns:
            False if somebody else has moved the bucket on.

        Raises:
            As open_new_epoch.
        """
        server = await self._server.identify()
        draining = await begin_draining(self._shard, lease)
        if draining is None:
            return False
        await load_scripts(self._server.redis, server.incarnation)
        await self._fence_and_drain(draining, server, last_renewal)
        if not await close_bucket(self._shard, draining):
            return False
        failpoint("recovery.after_close")
        await self._forget_older(draining, and_itself=True)
        self._observer.bucket_closed(draining)
        return True

    async def _ready_server(self) -> ServerIdentity:
        """Ask for a server that stays the same and takes writes, before anything is begun."""
        server = await self._server.identify()
        if not self._server.is_steady:
            raise BucketRecovering(why="the server has not been up for long enough")
        await self._server.try_to_write()
        return server

    async def _fence_and_drain(
        self, lease: Lease, server: ServerIdentity, last_renewal: float
    ) -> None:
        if lease.epoch_opened_at is None:
            # Never opened: the first, or one whose attempt failed. There is nothing to
            # fence, and whoever may still be writing it can open it no more.
            return
        fence = await fence_bucket(self._server.redis, self._keys(lease))
        failpoint("recovery.after_fence")
        if fence.code is FenceCode.NOT_READY or not is_of(lease, server):
            # The server that may still be selling cannot be fenced: its lease lapses.
            await _wait_until(last_renewal + LAPSE_MS / 1000)
            if _is_gone(fence):
                fence = await self._wait_for_lost_state(lease)
        await self._drain(lease, fence)
        failpoint("recovery.after_drain")

    async def _wait_for_lost_state(self, lease: Lease) -> FenceAnswer:
        """
        Give the registered server time to come back when every key is gone.

        An empty server in its place must not turn tickets into losses.
        """
        self._observer.redis_state_lost(lease)
        give_up_at = time.monotonic() + self._settings.lost_wait_ms / 1000
        while True:
            fence = await fence_bucket(self._server.redis, self._keys(lease))
            if not _is_gone(fence) or time.monotonic() >= give_up_at:
                return fence
            now = await read_lease(self._shard, lease.sale, lease.bucket)
            if now is not None and now.recover_reason == OPERATOR_NOW:
                return fence
            await asyncio.sleep(self._settings.poll_ms / 1000)

    async def _drain(self, lease: Lease, fence: FenceAnswer) -> None:
        """
        Wait until the flush has passed the last entry there was after the fence.

        Entries that were trimmed away unflushed never come: the stream is drained
        as well when nothing stands in it above the committed offset.
        """
        milliseconds, _, number = fence.last_entry_id.partition("-")
        last = (int(milliseconds), int(number))
        give_up_at = time.monotonic() + self._settings.drain_wait_ms / 1000
        while True:
            now = await read_lease(self._shard, lease.sale, lease.bucket)
            if now is None or now.epoch != lease.epoch:
                raise BucketRecovering(bucket=lease.name, why="somebody else moved it on")
            flushed = Offset(now.stream_ms, now.stream_seq)
            if flushed >= last or not await self._has_more(lease, flushed):
                return
            if time.monotonic() >= give_up_at:
                raise BucketRecovering(bucket=lease.name, why="the flush does not get on")
            await asyncio.sleep(self._settings.poll_ms / 1000)

    async def _has_more(self, lease: Lease, flushed: Offset) -> bool:
        picture = await take_picture(self._server.redis, self._keys(lease), flushed)
        return picture.waiting is not None

    async def _forget_older(self, lease: Lease, *, and_itself: bool = False) -> None:
        first = max(0, lease.epoch - _FORGET_EPOCHS)
        last = lease.epoch + (1 if and_itself else 0)
        await forget_epochs(
            self._server.redis,
            [
                BucketKeys(self._deployment, lease.sale, lease.bucket, epoch)
                for epoch in range(first, last)
            ],
        )

    def _keys(self, lease: Lease) -> BucketKeys:
        return BucketKeys(self._deployment, lease.sale, lease.bucket, lease.epoch)


def _is_gone(fence: FenceAnswer) -> bool:
    """Say whether neither state nor stream is there."""
    return fence.code is FenceCode.NOT_READY and fence.last_entry_id == "0-0"


async def _wait_until(moment: float) -> None:
    remaining = moment - time.monotonic()
    if remaining > 0:
        await asyncio.sleep(remaining)
