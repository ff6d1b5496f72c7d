"""
A sale that really runs, on both stores, by the service's own functions.

Nothing is written by hand: it is created, published, granted, opened and sold as
in production, but one step at a time, when a test says so.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis

from app.inventory.bucket import BucketState, Gate, RenewCode, renew_lease
from app.inventory.coordinator import Coordinator, CoordinatorSettings
from app.inventory.grants import Grants
from app.inventory.lease import LEASE_MS, Lease
from app.inventory.lease_store import read_lease
from app.inventory.levelling import Levelling
from app.inventory.mover import Mover, MoverSettings
from app.inventory.picture import Offset, take_picture
from app.inventory.recovery import Recovery, RecoverySettings
from app.inventory.server import BucketServer
from app.kernel.clock import SystemClock
from app.kernel.equation import Verdict, verdict_of
from app.kernel.errors import DoorbusterError
from app.kernel.ids import OrderKey
from app.kernel.loop import Pace, run_loop
from app.orders.audit import audit_orders
from app.orders.closer import AttemptsSettled, Closer, CloserSettings
from app.orders.flush_report import FlushReport
from app.orders.flusher import Flusher, FlusherSettings
from app.orders.placement import Click, Placement, bucket_of
from app.orders.scripts import SELLING_SCRIPTS
from app.orders.sealing import OrderIds
from app.orders.selling import Accepted, NotPlaced, Outcome, PlacementSettings
from app.sales.sale import Sale, SaleEvent, SaleKind, SaleTerms
from app.sales.store import Act, add_stock, change_state, create_sale, read_sales
from app.storage.duties import Duties
from app.storage.keys import BucketKeys
from app.storage.redis import open_redis
from app.storage.script_connection import ScriptConnection
from app.storage.server_clock import ServerClock
from app.storage.shards import Shard, Shards
from tests.stores.told import told
from tests.waiting import eventually

IDS: Final = OrderIds(b"0123456789abcdef")
BY_A_TEST: Final = Act("test", None)
LONG_AGO: Final = -1e9  # monotonic seconds: any lease has lapsed since
FLUSH_SETTINGS: Final = FlusherSettings(block_ms=1, refresh_ms=0)
RECOVERY_SETTINGS: Final = RecoverySettings(lost_wait_ms=100, drain_wait_ms=5_000, poll_ms=5)
COORDINATOR_SETTINGS: Final = CoordinatorSettings(
    close_after_seconds=0, retry_wait_ms_min=10, retry_wait_ms_max=100, recovery=RECOVERY_SETTINGS
)
PATIENT: Final = PlacementSettings(queue_wait_ms_max=5_000, call_timeout_ms=5_000)
HURRY: Final = Pace(idle_ms=5, retry_ms_min=5, retry_ms_max=20)


@dataclass
class Notes:
    """Hears of everything that workers report."""

    reports: list[FlushReport] = field(default_factory=list)
    trims_failed: list[DoorbusterError] = field(default_factory=list)
    opened: list[tuple[int, str]] = field(default_factory=list)  # epoch, reason
    alarms: list[str] = field(default_factory=list)
    closed: list[tuple[int, int]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)  # orders of each script call
    refusals: list[DoorbusterError] = field(default_factory=list)

    def flushed(self, _shard: int, report: FlushReport, _seconds: float) -> None:
        self.reports.append(report)

    def trim_failed(self, _shard: int, error: DoorbusterError) -> None:
        self.trims_failed.append(error)

    def epoch_opened(self, lease: Lease, reason: str, _seconds: float) -> None:
        self.opened.append((lease.epoch, reason))

    def redis_state_lost(self, _lease: Lease) -> None:
        self.alarms.append("redis_state_lost")

    def epochs_run_out(self, _lease: Lease) -> None:
        self.alarms.append("epochs_run_out")

    def bucket_closed(self, lease: Lease) -> None:
        self.closed.append(lease.name)

    def pass_failed(self, _worker: str, error: BaseException, _wait_ms: int) -> None:
        self.failures.append(error)

    def called(self, orders: int, _seconds: float) -> None:
        self.calls.append(orders)

    def refused(self, _sale: int, _bucket: int, error: DoorbusterError) -> None:
        self.refusals.append(error)

    def answered(self, _sale: int, _bucket: int) -> None:
        self.refusals.clear()

    def broken(self, _sale: int, _bucket: int, epoch: int, _error: DoorbusterError) -> None:
        self.alarms.append(f"epoch {epoch} broken")


async def nobody(keys):  # noqa: ARG001  every order goes the long way, by `settle`
    return set()


class RunningSale:
    """One sale with every worker at hand."""

    sale: Sale

    def __init__(self, shards: Shards, redis: Redis, api_url: str, deployment: str) -> None:
        self.shards = shards
        self.redis = redis
        self.api_url = api_url
        self.deployment = deployment
        self.notes = Notes()
        self.settled: AttemptsSettled = AttemptsSettled.CLOSED
        self.server = BucketServer(redis, deployment, steady_seconds=0)
        self.duties = [Duties(shard) for shard in shards.all]
        self.placement = self.new_placement()
        self._flushers = [self.new_flusher(shard) for shard in shards.all]
        self._keys = itertools.count(1)
        self._rivals: list[Duties] = []

    # What happens before the doors open.

    async def publish(self, **changes: Any) -> Sale:
        """Create and publish a sale of 10 units, limit 2, one bucket, open for hours."""
        now = datetime.now(UTC)
        given: dict[str, Any] = {
            "id": "spring",
            "kind": SaleKind.SECKILL,
            "title": "Spring",
            "sku": "tea",
            "merchant": "acme",
            "stock": 10,
            "price_minor": 8_880,
            "currency": "CNY",
            "limit_per_shopper": 2,
            "opens_at": now - timedelta(hours=1),
            "closes_at": now + timedelta(hours=1),
            "pay_within_seconds": 900,
            "buckets": 1,
        }
        terms = SaleTerms(**{**given, **changes})
        made = await create_sale(
            self.shards, terms, idempotency_key=terms.id, fingerprint=b"f", act=BY_A_TEST
        )
        assert made is not None
        self.sale = made.sale
        return await self.change(SaleEvent.PUBLISH)

    async def change(self, event: SaleEvent) -> Sale:
        changed = await change_state(self.shards, self.sale.number, event, BY_A_TEST)
        assert changed is not None
        self.sale = changed.sale
        return self.sale

    async def restock(self, units: int) -> None:
        key = f"restock-{next(self._keys)}"
        assert await add_stock(
            self.shards, self.sale.number, units, idempotency_key=key, act=BY_A_TEST
        )

    async def grant(self) -> None:
        for shard in self.shards.all:
            levelling = Levelling(shard, self.shards, self.redis, self.deployment)
            await Grants(shard, self.shards, levelling.remaining).lease_and_grant()

    async def open(self, **changes: Any) -> None:
        """Publish, grant, open every bucket and let it sell."""
        await self.publish(**changes)
        await self.grant()
        for bucket in range(self.sale.buckets):
            await self.recover(bucket, reason="first_opening")
        await self.move()

    # The workers, one step at a time.

    async def recover(
        self,
        bucket: int = 0,
        *,
        reason: str = "test",
        last_renewal: float = LONG_AGO,
        settings: RecoverySettings = RECOVERY_SETTINGS,
    ) -> Lease | None:
        """Take a new epoch while the flush goes on; renew its lease if it was opened."""
        lease = await self.lease(bucket)
        recovery = self.new_recovery(self.shard(bucket), settings)
        async with self.flushing():
            script = SELLING_SCRIPTS[lease.kind]
            opened = await recovery.open_new_epoch(lease, reason, last_renewal, script)
        if opened is not None:
            await self.renew(bucket)
        return opened

    async def close_bucket(self, bucket: int = 0) -> bool:
        async with self.flushing():
            recovery = self.new_recovery(self.shard(bucket))
            return await recovery.close(await self.lease(bucket), LONG_AGO)

    async def renew(self, bucket: int = 0, gate: Gate = Gate.OPEN) -> RenewCode:
        """Let a bucket sell for four seconds."""
        lease = await self.lease(bucket)
        identity = await self.server.identify()
        answer = await renew_lease(
            self.redis,
            self.keys(bucket, lease.epoch),
            incarnation=identity.incarnation,
            run_id=identity.run_id,
            master_replid=identity.master_replid,
            lease_until_ms=await self.server.now_ms() + LEASE_MS,
            gate=gate,
        )
        return answer.code

    async def click_once(
        self,
        shopper: str,
        quantity: int = 1,
        *,
        key: str = "",
        reference: str = "",
        group: str = "",
    ) -> Outcome:
        """Place one order; without a key, with one that was never used."""
        return await self.placement.place(
            self.sale, Click(shopper, key or f"key-{next(self._keys)}", quantity, reference, group)
        )

    async def click(self, shopper: str, quantity: int = 1, **more: str) -> Outcome:
        """Place one order, again and again while the bucket is not open to this process."""
        more.setdefault("key", f"key-{next(self._keys)}")

        async def answered() -> Outcome | None:
            outcome = await self.click_once(shopper, quantity, **more)
            if outcome is not NotPlaced.RECOVERING:
                return outcome
            await self.renew(bucket_of(shopper, self.sale.buckets))
            return None

        answer = await eventually(answered)
        assert answer is not None
        return answer

    async def buy(
        self, shopper: str, quantity: int = 1, *, key: str = "", group: str = ""
    ) -> OrderKey:
        """Place one order that must be accepted, and give its key."""
        key = key or f"key-{next(self._keys)}"
        outcome = await self.click(shopper, quantity, key=key, group=group)
        assert isinstance(outcome, Accepted), outcome
        return outcome.key

    async def flush(self) -> int:
        """Flush what every stream holds."""
        orders = 0
        while found := sum([await flusher.flush_once() for flusher in self._flushers]):
            orders += found
        return orders

    async def move(self) -> int:
        """Apply and credit every move that waits."""
        moved = 0
        while found := sum([await self.new_mover(shard).move_once() for shard in self.shards.all]):
            moved += found
        return moved

    async def move_on(self, shard: Shard) -> int:
        """Apply and credit the moves of one shard."""
        return await self.new_mover(shard).move_once()

    async def close_orders(self) -> int:
        return sum([await self.new_closer(shard).close_once() for shard in self.shards.all])

    @contextlib.asynccontextmanager
    async def flushing(self) -> AsyncIterator[None]:
        """Let a worker flush all the while."""
        stopping = asyncio.Event()
        flush = asyncio.create_task(run_loop("flusher", self.flush, stopping, self.notes, HURRY))
        try:
            yield
        finally:
            stopping.set()
            await flush

    # Workers to be had more than once.

    def new_flusher(self, shard: Shard, duties: Duties | None = None) -> Flusher:
        return Flusher(
            shard,
            duties or self.duties[shard.index],
            self.redis,
            self.deployment,
            FLUSH_SETTINGS,
            self.notes,
        )

    def new_mover(self, shard: Shard) -> Mover:
        return Mover(
            shard,
            self.shards,
            self.duties[shard.index],
            self.redis,
            self.deployment,
            MoverSettings(),
        )

    def new_closer(self, shard: Shard, orders_max: int = 500) -> Closer:
        settings = CloserSettings(orders_max=orders_max)
        return Closer(shard, self.duties[shard.index], nobody, self.settle, settings)

    async def settle(self, keys: Sequence[OrderKey]) -> dict[OrderKey, AttemptsSettled]:
        return dict.fromkeys(keys, self.settled)

    def new_recovery(
        self, shard: Shard, settings: RecoverySettings = RECOVERY_SETTINGS
    ) -> Recovery:
        return Recovery(shard, self.server, self.deployment, settings, self.notes)

    def new_coordinator(
        self,
        shard: Shard,
        duties: Duties | None = None,
        settings: CoordinatorSettings = COORDINATOR_SETTINGS,
    ) -> Coordinator:
        return Coordinator(
            shard,
            self.shards,
            duties or self.duties[shard.index],
            self.server,
            self.new_recovery(shard, settings.recovery),
            self.deployment,
            SELLING_SCRIPTS,
            settings,
            self.notes,
        )

    def new_placement(
        self, settings: PlacementSettings = PATIENT, url: str | None = None
    ) -> Placement:
        return Placement(
            self.shards,
            IDS,
            partial(
                ScriptConnection,
                url or self.api_url,
                client_name="test-place",
                connect_timeout_ms=5_000,
            ),
            ServerClock(SystemClock()),
            self.deployment,
            settings,
            self.notes,
        )

    # How things stand.

    def shard(self, bucket: int = 0) -> Shard:
        return self.shards.of(self.sale.number, bucket)

    def keys(self, bucket: int = 0, epoch: int = 1) -> BucketKeys:
        return BucketKeys(self.deployment, self.sale.number, bucket, epoch)

    async def lease(self, bucket: int = 0) -> Lease:
        lease = await read_lease(self.shard(bucket), self.sale.number, bucket)
        assert lease is not None
        return lease

    async def state(self, bucket: int = 0, epoch: int | None = None) -> BucketState | None:
        """What the open epoch's keys say; None if there is no state."""
        at = (await self.lease(bucket)).epoch if epoch is None else epoch
        return (await take_picture(self.redis, self.keys(bucket, at), Offset(0, 0))).state

    async def remaining(self, bucket: int = 0) -> int:
        state = await self.state(bucket)
        assert state is not None
        return state.remaining

    async def pool(self) -> int:
        (sale,) = await read_sales(self.shards.home(self.sale.number), [self.sale.number])
        return sale.pool

    async def execute(self, statement: str, *arguments: object, bucket: int = 0) -> None:
        async with self.shard(bucket).connection() as connection:
            await connection.execute(statement, *arguments)

    async def rows(
        self, statement: str, *arguments: object, bucket: int = 0
    ) -> list[Mapping[str, Any]]:
        async with self.shard(bucket).connection() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]

    async def value(self, statement: str, *arguments: object, bucket: int = 0) -> Any:
        async with self.shard(bucket).connection() as connection:
            return await connection.fetchval(statement, *arguments)

    async def audited(self) -> str:
        """Say what does not hold of I1 to I20; nothing, when everything does."""
        equations = await audit_orders(self.shards, self.redis, self.deployment)
        if verdict_of(equations) is Verdict.HOLDS:
            return ""
        return told([equation for equation in equations if equation.holds is not True])

    async def broken(self) -> str:
        """Say what is broken, even while something is on its way and not all can be judged."""
        equations = await audit_orders(self.shards, self.redis, self.deployment)
        return told([equation for equation in equations if equation.holds is False])

    async def at_rest(self) -> str:
        """Let every worker finish what is under way, and judge."""
        await eventually(self._is_idle)
        return await self.audited()

    async def _is_idle(self) -> bool:
        return not (await self.flush() + await self.move())

    def another_process(self, shard: Shard) -> Duties:
        """The duties of a rival."""
        duties = Duties(shard)
        self._rivals.append(duties)
        return duties

    async def close(self) -> None:
        await self.placement.close()
        for duties in (*self.duties, *self._rivals):
            await duties.close()


@contextlib.asynccontextmanager
async def running_sale(
    shards: Shards, redis_url: str, api_url: str, deployment: str
) -> AsyncIterator[RunningSale]:
    """Open what a sale needs, and close it at the end."""
    redis = open_redis(
        redis_url, client_name="test-shop", connect_timeout_ms=5_000, call_timeout_ms=5_000
    )
    shop = RunningSale(shards, redis, api_url, deployment)
    try:
        yield shop
    finally:
        await shop.close()
        async for key in redis.scan_iter(f"{deployment}:*"):
            await redis.delete(key)
        await redis.aclose()
