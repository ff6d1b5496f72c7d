"""
A sale, its stores and its payment gateway, in which roles are killed and started again.

What the shoppers were told is remembered here, on this side of every crash: after the restart
each order must be there, once, and every equation of the audit must hold with nothing under way.
"""

import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from prometheus_client import CollectorRegistry

from app.embedded.ports import free_port
from app.embedded.probes import listens
from app.embedded.run_secrets import RunSecrets
from app.kernel.clock import SystemClock
from app.kernel.failpoints import Failpoint
from app.kernel.ids import OrderKey
from app.orders.order import Order
from app.orders.sealing import OrderIds
from app.orders.store import read_ticket
from app.payments.provider import Product
from app.payments.providers.sandbox import SandboxProvider
from app.payments.stage import PaymentStage, Providers
from app.payments.start import PaymentWish, Started, start_payment
from app.payments.tally import PaymentTally
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.settings import read_settings
from app.settlement.full_audit import audit_all
from app.storage.shards import Database
from app.wiring.stores import SANDBOX_KEY_ID, sandbox_provider_settings
from tests.faults.steps.role_process import Role, RoleProcess
from tests.real_stores import RealStores
from tests.stores.orders.running_sale import RunningSale
from tests.stores.told import told
from tests.waiting import eventually

REST_SECONDS: Final = 20.0
# Deadlines of minutes become moments, so that a restart need not be waited for.
HURRIED: Final[Mapping[str, str]] = {
    "DOORBUSTER_INVENTORY__COORDINATOR_PASS_MS": "50",
    "DOORBUSTER_INVENTORY__COORDINATOR_STEADY_MS": "0",
    "DOORBUSTER_INVENTORY__COORDINATOR_CLOSE_AFTER_SECONDS": "0",
    "DOORBUSTER_INVENTORY__COORDINATOR_RETRY_WAIT_MS_MIN": "50",
    "DOORBUSTER_INVENTORY__COORDINATOR_RECOVERY_POLL_MS": "5",
    "DOORBUSTER_PAYMENTS__FLOW_REFUND_PAUSES_MS": "[50]",
    "DOORBUSTER_PAYMENTS__FLOW_START_MARGIN_SECONDS_MAX": "0",
}
# What keeps a shard from being at rest.
COUNT_UNFINISHED: Final = """
SELECT (SELECT count(*) FROM bucket_moves WHERE state IN ('asked', 'debited'))
     + (SELECT count(*) FROM grants WHERE state = 'issued')
     + (SELECT count(*) FROM outbox WHERE done_at IS NULL)
     + (SELECT count(*) FROM refunds WHERE state <> 'succeeded')
     + (SELECT count(*) FROM orders WHERE state = 'closing' OR state = 'pending' AND pay_by < now())
     + (SELECT count(*) FROM bucket_leases WHERE state = 'draining')
     + (SELECT count(*) FROM groups WHERE state <> 'open' AND released_at IS NULL)
     + (SELECT count(*) FROM sales WHERE state <> 'draft' AND leased_at IS NULL)"""
# A key of personal fields that has just been replaced.
OLD_KEY: Final = {"kid": "old", "key": "b2xk" * 10 + "b2w", "use": "open"}
EXPIRE_ORDERS: Final = "UPDATE orders SET pay_by = recorded_at WHERE state = 'pending'"


@dataclass
class Site:
    """
    Everything a scene needs.

    Attributes:
        sale: the sale with every worker at hand, in this process.
        environment: what a role is started with.
        accepted: each order a shopper was told of, and whose it is.
    """

    sale: RunningSale
    stores: RealStores
    ledger: Database
    stage: PaymentStage
    environment: Mapping[str, str]
    folder: Path
    gateway: str
    client: aiohttp.ClientSession
    accepted: dict[OrderKey, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def callback_port(self) -> int:
        return int(self.environment["DOORBUSTER_WEB__PORT"])

    async def buy(self, shoppers: int, quantity: int = 1, group: str = "") -> list[OrderKey]:
        """Let so many new shoppers place an order each, which must be accepted."""
        await self.sale.renew()
        keys = []
        for _ in range(shoppers):
            shopper = f"shopper-{next(self._numbers)}"
            key = await self.sale.buy(shopper, quantity, group=group)
            assert key not in self.accepted, "two shoppers were told of the same order"
            self.accepted[key] = shopper
            keys.append(key)
        return keys

    async def expire(self) -> None:
        """Let the deadline of every unpaid order have passed."""
        await self.sale.execute(EXPIRE_ORDERS)

    async def start_payment(self, key: OrderKey) -> str:
        """Start a payment that the gateway knows of; give its number."""
        shopper = self.accepted[key]
        wish = PaymentWish(
            order_id=self.stage.order_ids.write(key, shopper),
            shopper=shopper,
            idempotency_key=f"pay-{next(self._numbers):016}",
            provider="sandbox",
            product=Product.QR,
        )
        started = await start_payment(self.stage, wish)
        assert isinstance(started, Started), started
        return started.payment.payment_id

    async def pay(self, number: str) -> None:
        """Let the shopper pay; the gateway tells our api until that acknowledges."""
        url = f"{self.gateway}/control/payments/{number}"
        async with self.client.post(url, json={"outcome": "pay"}) as response:
            assert response.status == 202, await response.text()

    def start(self, role: Role, *failpoints: Failpoint, metrics_port: int = 0) -> RoleProcess:
        """Make a role's process, armed or not; with a port where it tells its metrics."""
        armed = json.dumps([asdict(one) for one in failpoints])
        environment = {
            **self.environment,
            "DOORBUSTER_PROCESS__FAILPOINTS": armed,
            "DOORBUSTER_PROCESS__METRICS_PORT": str(metrics_port),
        }
        return RoleProcess(role, environment, self.folder / f"{role}.log")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Let an api take the provider's callbacks."""
        with self.start(Role.API):
            await eventually(lambda: listens(self.callback_port))
            yield

    async def step_aside(self) -> None:
        """Let go of every duty, so that the roles get them."""
        for duties in self.sale.duties:
            await duties.close()

    async def unfinished(self) -> int:
        waiting = 0
        for shard in self.sale.shards.all:
            async with shard.connection() as connection:
                waiting += await connection.fetchval(COUNT_UNFINISHED)
        return waiting

    async def broken(self) -> str:
        """Say which equations do not hold, or cannot be judged yet."""
        equations = await audit_all(
            self.sale.shards, self.sale.redis, self.ledger, self.sale.deployment
        )
        assert equations
        return told([equation for equation in equations if equation.holds is not True])

    async def rest(self, finished: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the scene is finished, every equation holds and every order is there."""

        async def is_at_rest() -> bool:
            return await finished() and not await self.unfinished() and not await self.broken()

        try:
            await eventually(is_at_rest, within_seconds=REST_SECONDS)
        except AssertionError:
            told = [log.read_text()[-1_500:] for log in self.folder.glob("*.log")]
            under_way = await self.unfinished()
            said = (await finished(), under_way, await self.broken(), await self.sale.lease())
            raise AssertionError("\n".join(map(str, (*said, *told)))) from None
        for key, shopper in self.accepted.items():
            found = await read_ticket(self.sale.shards.of(key.sale, key.bucket), key)
            assert isinstance(found, Order), f"{key} was accepted and is lost: {found}"
            assert found.shopper == shopper

    async def state_of(self, key: OrderKey) -> str:
        found = await read_ticket(self.sale.shards.of(key.sale, key.bucket), key)
        assert found is not None
        return str(found.state)


@contextlib.asynccontextmanager
async def open_site(
    sale: RunningSale,
    stores: RealStores,
    shard_urls: tuple[str, ...],
    ledger: Database,
    folder: Path,
) -> AsyncIterator[Site]:
    """Open a gateway beside the sale, and write the settings of its roles."""
    keys, clock = RunSecrets(), SystemClock()
    sandbox = SandboxSettings(
        port=0,
        journal_dir=folder / "gateway",
        keys={SANDBOX_KEY_ID: keys.sandbox_key.encode()},
        clock_factor=10_000,  # a callback is repeated within milliseconds, for nine seconds
        refund_after_ms=0,
    )
    async with contextlib.AsyncExitStack() as opened:
        gateway = await opened.enter_async_context(serve_sandbox(sandbox, clock))
        environment = {
            **HURRIED,
            **environment_of(stores, shard_urls, ledger.url, sale.deployment, keys),
            "DOORBUSTER_PAYMENTS__SANDBOX_URL": gateway,
        }
        settings = read_settings(environment)
        provider = await opened.enter_async_context(
            SandboxProvider(sandbox_provider_settings(settings), clock)
        )
        stage = PaymentStage(
            shards=sale.shards,
            order_ids=OrderIds(bytes.fromhex(keys.order_id_key)),
            providers=Providers([provider]),
            clock=clock,
            settings=settings.payments.flow,
            tally=PaymentTally(CollectorRegistry()),
        )
        client = await opened.enter_async_context(aiohttp.ClientSession())
        yield Site(sale, stores, ledger, stage, environment, folder, gateway, client)


def environment_of(
    stores: RealStores,
    shard_urls: tuple[str, ...],
    ledger_url: str,
    deployment: str,
    keys: RunSecrets,
) -> dict[str, Any]:
    """Spell the settings of every role on these stores."""
    port = free_port()
    operator = {"token": keys.admin_token, "scope": "operator", "name": "test"}
    return {
        "DOORBUSTER_EMBEDDED": "1",
        "DOORBUSTER_PROCESS__INDEX": "1",  # the first api would have the admin listener
        "DOORBUSTER_REDIS__URL": stores.redis_url,
        "DOORBUSTER_REDIS__API_URL": stores.redis_api_url,
        "DOORBUSTER_REDIS__DEPLOYMENT": deployment,
        "DOORBUSTER_POSTGRES__SHARD_URLS": json.dumps(shard_urls),
        "DOORBUSTER_POSTGRES__LEDGER_URL": ledger_url,
        "DOORBUSTER_AUTH__KEYS": json.dumps([asdict(keys.auth_key)]),
        "DOORBUSTER_AUTH__OPERATORS": json.dumps([operator]),
        "DOORBUSTER_ORDERS__ID_KEY": keys.order_id_key,
        "DOORBUSTER_FULFILMENT__DELIVERY_KEYS": json.dumps([asdict(keys.delivery_key), OLD_KEY]),
        "DOORBUSTER_WEB__HOST": "127.0.0.1",
        "DOORBUSTER_WEB__PORT": str(port),
        "DOORBUSTER_PAYMENTS__SANDBOX_KEY": keys.sandbox_key,
        "DOORBUSTER_PAYMENTS__CALLBACK_URL": f"http://127.0.0.1:{port}/v1/callbacks",
    }
