"""
A sale, its stores and its payment gateway, in which roles are killed and started again.

What the shoppers were told is remembered here, on this side of every crash: after the restart
each order must be there, once, and every equation of the audit must hold with nothing under way.
The gateway speaks its own protocol, WeChat Pay's and Alipay's.
"""

import asyncio
import contextlib
import functools
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from prometheus_client import CollectorRegistry

from app.embedded.payment_keys import PaymentKeys, new_payment_keys
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
from app.sandbox.alipay.merchants import AlipayMerchant
from app.sandbox.journal import Journal
from app.sandbox.records import Callback, Refund
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.wechatpay.merchants import WechatpayMerchant
from app.settings import read_settings
from app.settlement.full_audit import audit_all
from app.storage.shards import Database
from app.wiring.providers import open_providers
from app.wiring.stores import SANDBOX_KEY_ID, sandbox_provider_settings
from loadtest.tokens import Signer
from tests.faults.steps.role_process import Role, RoleProcess
from tests.real_stores import RealStores
from tests.stores.orders.running_sale import RunningSale
from tests.stores.told import told
from tests.waiting import eventually

REST_SECONDS: Final = 20.0
ANSWER_SECONDS: Final = 5.0  # a client's patience with one request
# Deadlines of minutes become moments, so that a restart need not be waited for.
GATEWAY: Final = "gateway"  # where its journal is, in the site's folder
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


Kind = TypeVar("Kind", Callback, Refund)


@dataclass
class Site:
    """
    Everything a scene needs.

    Attributes:
        sale: the sale with every worker at hand, in this process.
        environment: what a role is started with.
        secrets: of this deployment, some of which are in the environment.
        accepted: each order a shopper was told of, and whose it is.
    """

    sale: RunningSale
    stores: RealStores
    ledger: Database
    stage: PaymentStage
    environment: Mapping[str, str]
    secrets: RunSecrets
    folder: Path
    gateway: str
    client: aiohttp.ClientSession
    accepted: dict[OrderKey, str] = field(default_factory=dict)
    _clients: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def public_port(self) -> int:
        return int(self.environment["DOORBUSTER_WEB__PORT"])

    @property
    def admin_port(self) -> int:
        return int(self.environment["DOORBUSTER_WEB__ADMIN_PORT"])

    def order_id(self, key: OrderKey) -> str:
        """Give an order's name outside."""
        return self.stage.order_ids.write(key, self.accepted[key])

    def token_of(self, shopper: str) -> str:
        return Signer.from_keys([self.secrets.auth_key]).sign(shopper)

    def remembered(self, kind: type[Kind]) -> list[Kind]:
        """Read what the gateway remembers of one kind, in the order it first heard of it."""
        return [one for one in Journal(self.folder / GATEWAY).read() if isinstance(one, kind)]

    def begin(self, client: Coroutine[Any, Any, None]) -> None:
        """Let a client of the service act from now on, whoever of us dies meanwhile."""
        self._clients.add(asyncio.create_task(client))

    def clients_are_done(self) -> bool:
        """Whether every client has ended; one that failed fails here."""
        return all(one.done() and one.result() is None for one in self._clients)

    async def dismiss(self) -> None:
        """End the clients that still act."""
        for one in self._clients:
            one.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

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

    async def start_payment(self, key: OrderKey, provider: str = "sandbox") -> str:
        """Start a payment that the gateway knows of; give its number."""
        wish = PaymentWish(
            order_id=self.order_id(key),
            shopper=self.accepted[key],
            idempotency_key=f"pay-{next(self._numbers):016}",
            provider=provider,
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

    async def insist(self, port: int, path: str, token: str, body: object = None) -> Any:
        """
        Ask as a good client does: the same request, with one key, until there is an answer.

        Returns:
            The document of the answer, which must be a success.
        """
        await eventually(lambda: listens(port), within_seconds=REST_SECONDS)
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "ask-0000000000000001"}
        patience = aiohttp.ClientTimeout(total=ANSWER_SECONDS)

        async def answered() -> Any:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.client.post(
                    f"http://127.0.0.1:{port}{path}", headers=headers, json=body, timeout=patience
                ) as response:
                    assert response.status in {200, 201}, await response.text()
                    return await response.json()
            return None

        return await eventually(answered, within_seconds=REST_SECONDS)

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
            await eventually(lambda: listens(self.public_port))
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
    async with contextlib.AsyncExitStack() as opened:
        sandbox = gateway_settings(keys, folder)
        gateway = await opened.enter_async_context(serve_sandbox(sandbox, clock))
        environment = {
            **HURRIED,
            **environment_of(stores, shard_urls, ledger.url, sale.deployment, keys),
            **accounts_at(gateway),
        }
        settings = read_settings(environment)
        providers = await opened.enter_async_context(open_providers(settings.payments, clock))
        plain = SandboxProvider(sandbox_provider_settings(settings), clock)
        stage = PaymentStage(
            shards=sale.shards,
            order_ids=OrderIds(bytes.fromhex(keys.order_id_key)),
            providers=Providers([*providers, await opened.enter_async_context(plain)]),
            clock=clock,
            settings=settings.payments.flow,
            tally=PaymentTally(CollectorRegistry()),
        )
        client = await opened.enter_async_context(aiohttp.ClientSession())
        site = Site(sale, stores, ledger, stage, environment, keys, folder, gateway, client)
        opened.push_async_callback(site.dismiss)
        yield site


@functools.cache
def payment_keys() -> PaymentKeys:
    """The keys of both sides of the wallets: made once, for that takes half a second."""
    return new_payment_keys()


def gateway_settings(keys: RunSecrets, folder: Path) -> SandboxSettings:
    """Let the gateway hurry: a callback is repeated within milliseconds, for 17 seconds."""
    merchants = payment_keys()
    return SandboxSettings(
        port=0,
        journal_dir=folder / GATEWAY,
        keys={SANDBOX_KEY_ID: keys.sandbox_key.encode()},
        wechatpay=(msgspec.convert(merchants.wechatpay_merchant_document(), WechatpayMerchant),),
        alipay=(msgspec.convert(merchants.alipay_merchant_document(), AlipayMerchant),),
        clock_factor=5_000,
        refund_after_ms=0,
    )


def accounts_at(gateway: str) -> dict[str, str]:
    """Spell our accounts at the gateway, one for each of its protocols."""
    merchants = payment_keys()
    return {
        "DOORBUSTER_PAYMENTS__SANDBOX_URL": gateway,
        "DOORBUSTER_PAYMENTS__WECHATPAY": json.dumps([merchants.wechatpay_account(gateway)]),
        "DOORBUSTER_PAYMENTS__ALIPAY": json.dumps([merchants.alipay_account(gateway)]),
    }


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
        "DOORBUSTER_WEB__ADMIN_PORT": str(free_port()),
        "DOORBUSTER_PAYMENTS__SANDBOX_KEY": keys.sandbox_key,
        "DOORBUSTER_PAYMENTS__CALLBACK_URL": f"http://127.0.0.1:{port}/v1/callbacks",
    }
