"""
The coordinator: grants units, opens and fences buckets, renews their leases.

A process of its own; one leader per shard by an advisory lock, a second one
standing by. Each pass looks at every bucket of the shard and brings it one step
nearer to what the sale row wants. It never decides from memory what may be sold:
epochs are taken in Postgres, and a coordinator that wakes up late finds its
epoch moved on and its renewals refused.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.inventory.bucket import Gate, RenewCode, renew_lease
from app.inventory.grants import Grants
from app.inventory.lease import LEASE_MS, BucketMode, Lease, ServerIdentity, gate_of, is_of
from app.inventory.lease_store import ends_at, live_leases
from app.inventory.levelling import Levelling
from app.inventory.recovery import Recovery, RecoverySettings
from app.inventory.server import BucketServer
from app.kernel.clock import instant
from app.kernel.errors import DoorbusterError, ScriptMissing, ShardUnavailable
from app.kernel.loop import Reporter
from app.sales.sale import Sale, SaleKind, SaleState
from app.sales.store import read_sales
from app.storage.duties import Duties
from app.storage.keys import BucketKeys
from app.storage.shards import LockPurpose, Shard, Shards


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """How a coordinator looks after its buckets."""

    pass_ms: int = 500  # between looks; a lease of 4 s survives several lost ones
    look_ms_max: int = 250  # a renewal waits this long for rows, then goes by what was known
    steady_ms: int = 2_000  # the same server this long, or no epoch (docs/HOT_PATH.md §7)
    close_after_seconds: int = 600  # a bucket closes no sooner after its end (docs/HOT_PATH.md §7)
    retry_wait_ms_min: int = 1_000  # first pause after an attempt at an epoch failed
    retry_wait_ms_max: int = 60_000  # longest: there are 4 095 epochs
    recovery: RecoverySettings = field(default_factory=RecoverySettings)

    def __post_init__(self) -> None:
        assert 0 < self.pass_ms <= LEASE_MS // 2
        assert 0 < self.retry_wait_ms_min <= self.retry_wait_ms_max
        assert self.close_after_seconds >= 0
        assert self.steady_ms >= 0
        assert 0 < self.look_ms_max <= LEASE_MS // 4


@dataclass(slots=True)
class _Care:
    """What the leader remembers of one bucket between its looks."""

    lease: Lease
    sale: Sale | None = None  # None while it was never read: its home shard is away
    gate: Gate | None = None  # of the sale row as it was just read; None leaves it as it is
    last_renewal: float = 0.0  # monotonic; 0.0 means none by this process
    failures: int = 0
    not_before: float = 0.0  # monotonic: the next attempt at an epoch
    task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the bucket is being opened, recovered or closed right now."""
        return self.task is not None and not self.task.done()


class _Errand:
    """
    Work on rows that must not hold up the renewals.

    A shard that is frozen answers after seconds, and a lease lasts four. So the
    work goes on in the background, at most once at a time, and each pass waits a
    moment for it.
    """

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._task: asyncio.Future[None] | None = None

    async def go_on(self, wait_ms: int) -> bool:
        """
        Begin it, or wait for the one under way; say whether it is done.

        Raises:
            ShardUnavailable: it failed; the next call begins anew.
        """
        if self._task is None:
            self._task = asyncio.ensure_future(self._work())
        done, _ = await asyncio.wait([self._task], timeout=wait_ms / 1000)
        if not done:
            return False
        task, self._task = self._task, None
        task.result()
        return True

    async def stop(self) -> None:
        """Give up what is under way; its rows say how far it came."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Coordinator:
    """Looks after the buckets of one shard."""

    def __init__(  # noqa: PLR0913, PLR0917  collaborators, each once
        self,
        shard: Shard,
        shards: Shards,
        duties: Duties,
        server: BucketServer,
        recovery: Recovery,
        deployment: str,
        scripts: Mapping[SaleKind, str],  # paths of what sells: a later stage owns them
        settings: CoordinatorSettings,
        reporter: Reporter,
    ) -> None:
        self._shard = shard
        self._shards = shards
        self._duties = duties
        self._server = server
        self._recovery = recovery
        self._deployment = deployment
        self._scripts = scripts
        self._settings = settings
        self._reporter = reporter
        self._levelling = Levelling(shard, shards, server.redis, deployment)
        self._grants = Grants(shard, shards, self._levelling.remaining)
        self._granting = _Errand(self._grant)
        self._looking = _Errand(self._look)
        self._leads = False
        self._leads_since = time.monotonic()
        self._cares: dict[tuple[int, int], _Care] = {}

    async def coordinate_once(self) -> int:
        """
        Look at every bucket of the shard once.

        While the shard does not answer, or not in time, what was open goes on being
        renewed; nothing is opened or recovered. Another shard that is away holds up
        nothing but the grants that go there, and the gates of the sales at home there.

        Returns:
            0: the loop's idle time is the time between two looks.

        Raises:
            RedisUnavailable: the server does not answer; buckets stop by themselves.
            ShardUnavailable: after the renewals were sent.
        """
        failed: list[ShardUnavailable] = []
        await self._go_on(self._granting, failed)
        has_seen = await self._go_on(self._looking, failed)
        if not self._leads:
            await self._let_go()
            return 0
        identity = await self._server.identify()
        now_ms = await self._server.now_ms()
        renewals = [
            self._tend(care, identity, now_ms, has_seen=has_seen) for care in self._cares.values()
        ]
        # One bucket's trouble is not another's: all are tended, then the first is told.
        told = await asyncio.gather(*renewals, return_exceptions=True)
        for trouble in [*failed, *told]:
            if trouble is not None:
                raise trouble
        return 0

    async def _go_on(self, errand: _Errand, failed: list[ShardUnavailable]) -> bool:
        try:
            return await errand.go_on(self._settings.look_ms_max)
        except ShardUnavailable as error:
            failed.append(error)
            return False

    async def close(self) -> None:
        """Stop what is under way; whoever leads next carries on from the rows."""
        await self._granting.stop()
        await self._looking.stop()
        await self._let_go()

    async def _grant(self) -> None:
        if await self._duties.has(LockPurpose.COORDINATE):
            await self._grants.lease_and_grant()
            await self._levelling.level_once()

    async def _let_go(self) -> None:
        tasks = [care.task for care in self._cares.values() if care.task is not None]
        self._cares.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Read lease and sale rows; a home shard that is away leaves the old sale row."""
        led, self._leads = self._leads, await self._duties.has(LockPurpose.COORDINATE)
        if not self._leads:
            return
        if not led:
            self._leads_since = time.monotonic()
        # A row read while its bucket was being moved on may be older than what the
        # task knows by now: it is left for the next look.
        moving = {name for name, care in self._cares.items() if care.is_busy}
        leases = await live_leases(self._shard)
        kept = {lease.name for lease in leases} | moving
        self._cares = {name: care for name, care in self._cares.items() if name in kept}
        for lease in leases:
            care = self._cares.setdefault(lease.name, _Care(lease))
            if lease.name not in moving:
                care.lease = lease
        sales = await self._read_sales(leases)
        for care in self._cares.values():
            read = sales.get(care.lease.sale)
            care.sale = read or care.sale
            care.gate = gate_of(read) if read else None

    async def _read_sales(self, leases: Sequence[Lease]) -> dict[int, Sale]:
        """Read the sales of these buckets; those of another home that is away are left out."""
        by_home: dict[int, set[int]] = {}
        for lease in leases:
            by_home.setdefault(lease.home_shard, set()).add(lease.sale)
        sales: dict[int, Sale] = {}
        for home, numbers in by_home.items():
            try:
                found = await read_sales(self._shards.all[home], sorted(numbers))
            except ShardUnavailable:
                if home == self._shard.index:
                    raise
                continue
            sales.update((sale.number, sale) for sale in found)
        return sales

    async def _tend(
        self, care: _Care, identity: ServerIdentity, now_ms: int, *, has_seen: bool
    ) -> None:
        """
        Bring one bucket a step nearer to what its sale row wants.

        Args:
            care: the bucket.
            identity: of the server as it is now.
            now_ms: the server's clock.
            has_seen: whether lease and sale rows are of this pass; if not, nothing is
                begun and the gate is left as it is.
        """
        if care.is_busy:
            return
        if care.task is not None:
            task, care.task = care.task, None
            task.result()  # a bug in it ends this process, instead of a bucket that stays shut
        reason = self._reason_for_epoch(care.lease, identity)
        is_time = self._server.is_steady and time.monotonic() >= care.not_before
        may_begin = has_seen and is_time
        if self._has_ended(care, instant(now_ms)):
            if may_begin:
                self._begin(care, "closing")
            return
        if reason is None:
            gate = care.gate if has_seen else None
            reason = await self._renew(care, identity, now_ms, gate)
        if reason is not None and may_begin:
            self._begin(care, reason)

    def _reason_for_epoch(self, lease: Lease, identity: ServerIdentity) -> str | None:
        """Say why the bucket needs a new epoch before anything else, if it does."""
        if lease.state is BucketMode.DRAINING:
            return lease.recover_reason or ("recovery" if lease.was_opened else "first_opening")
        if lease.recover_reason is not None:
            return lease.recover_reason
        return None if is_of(lease, identity) else "other_server"

    def _has_ended(self, care: _Care, now: datetime) -> bool:
        end = ends_at(care.lease, care.sale)
        is_closed = care.sale is not None and care.sale.state is SaleState.CLOSED
        if is_closed and not care.lease.was_opened:
            return True
        return now >= end + timedelta(seconds=self._settings.close_after_seconds)

    async def _renew(
        self, care: _Care, identity: ServerIdentity, now_ms: int, gate: Gate | None
    ) -> str | None:
        """Renew a lease and set its gate; return why not, if it needs an epoch."""
        care.last_renewal = time.monotonic()
        lease = care.lease
        keys = BucketKeys(self._deployment, lease.sale, lease.bucket, lease.epoch)
        try:
            answer = await renew_lease(
                self._server.redis,
                keys,
                incarnation=identity.incarnation,
                run_id=identity.run_id,
                master_replid=identity.master_replid,
                lease_until_ms=now_ms + LEASE_MS,
                gate=gate,
            )
        except ScriptMissing:
            return "script_missing"
        match answer.code:
            case RenewCode.NOT_READY:
                return "state_missing"
            case RenewCode.FENCED:
                return "fenced"
            case RenewCode.OTHER_SERVER:
                return "other_server"
            case _:
                return None

    def _begin(self, care: _Care, reason: str) -> None:
        care.task = asyncio.get_running_loop().create_task(self._step(care, reason))

    async def _step(self, care: _Care, reason: str) -> None:
        """Open, recover or close one bucket; on failure wait longer before the next try."""
        wait_ms = self._retry_wait_ms(care.failures)
        care.failures += 1
        # Set first, so that a bug waits too: each attempt may cost an epoch.
        care.not_before = time.monotonic() + wait_ms / 1000
        try:
            await self._walk(care, reason)
        except DoorbusterError as error:
            care.not_before = time.monotonic() + wait_ms / 1000
            self._reporter.pass_failed(f"recovery of {care.lease.name}", error, wait_ms)
            return
        care.failures = 0
        care.not_before = 0.0

    async def _walk(self, care: _Care, reason: str) -> None:
        # Whoever led before may have renewed until the moment its lock was ours.
        last_renewal = max(care.last_renewal, self._leads_since)
        if reason == "closing":
            if await self._recovery.close(care.lease, last_renewal):
                self._cares.pop(care.lease.name, None)
            return
        opened = await self._recovery.open_new_epoch(
            care.lease, reason, last_renewal, self._scripts[care.lease.kind]
        )
        if opened is None:
            return
        care.lease = opened
        read = (await self._read_sales([opened])).get(opened.sale)
        care.sale = read or care.sale
        identity = await self._server.identify()
        if is_of(opened, identity):
            # Without a sale row the gate stays shut: the sale may have been paused.
            gate = gate_of(read) if read else None
            await self._renew(care, identity, await self._server.now_ms(), gate)

    def _retry_wait_ms(self, failures: int) -> int:
        settings = self._settings
        ceiling = min(
            settings.retry_wait_ms_max, settings.retry_wait_ms_min * 2 ** min(failures, 6)
        )
        return int(ceiling * random.uniform(0.75, 1.0))  # noqa: S311  jitter, not a secret
