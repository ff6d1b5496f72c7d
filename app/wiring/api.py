"""The api: serve shoppers, providers and operators."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from aiohttp import web
from redis.asyncio import Redis

from app.admission.authenticator import TokenAuthenticator
from app.admission.operators import Operators
from app.admission.settings import read_operator_tokens, read_token_keys
from app.admission.tokens import ShopperTokens
from app.fulfilment.desk import FulfilmentDesk
from app.fulfilment.operators.routes import admin_endpoints as fulfilment_admin_endpoints
from app.fulfilment.routes import endpoints as fulfilment_endpoints
from app.inventory.queues import Queues, read_all_queues
from app.inventory.routes import admin_endpoints as stock_endpoints
from app.inventory.stock import Stock
from app.kernel.clock import SystemClock
from app.kernel.equation import Equation
from app.kernel.errors import DoorbusterError
from app.kernel.garbage import settle_garbage
from app.orders.confirmations import Confirmations
from app.orders.desk import OrderDesk
from app.orders.events.last.routes import LastOrders, last_order_endpoint
from app.orders.events.routes import EventDesk
from app.orders.events.routes import endpoints as event_endpoints
from app.orders.events.watch import Watch
from app.orders.fast_lane import BuyLane
from app.orders.groups.routes import GroupDesk
from app.orders.groups.routes import endpoints as group_endpoints
from app.orders.letters.routes import admin_endpoints as letter_endpoints
from app.orders.placement import Placement
from app.orders.routes import admin_endpoints as order_admin_endpoints
from app.orders.routes import endpoints as order_endpoints
from app.orders.tally import PlacementTally
from app.payments.expiry import settle_attempts
from app.payments.risk.routes import admin_endpoints as risk_admin_endpoints
from app.payments.routes import admin_endpoints as payment_admin_endpoints
from app.payments.routes import endpoints as payment_endpoints
from app.payments.stage import PaymentStage
from app.payments.views import payments_of_order
from app.sales.catalog import Catalog
from app.sales.routes import SaleDesk
from app.sales.routes import admin_endpoints as sale_admin_endpoints
from app.sales.routes import endpoints as sale_endpoints
from app.settings import Settings, require
from app.settlement.books import Books
from app.settlement.full_audit import audit_all
from app.settlement.house.desk import House
from app.settlement.house.routes import admin_endpoints as house_admin_endpoints
from app.settlement.house.routes import endpoints as house_endpoints
from app.settlement.routes import admin_endpoints as ledger_endpoints
from app.settlement.routes import audit_endpoint
from app.storage.redis import open_redis
from app.storage.script_connection import ScriptConnection
from app.storage.server_clock import ServerClock
from app.telemetry.lag import measure_lag
from app.telemetry.metrics import Metrics
from app.web.application import build_application
from app.web.endpoint import Endpoint
from app.web.exposition import metrics_endpoint, targets_endpoint
from app.web.fast_lane import Stamp
from app.web.health import Readiness, health_endpoints
from app.web.openapi import openapi_endpoint
from app.web.server import Listener
from app.wiring.fulfilment import fulfilment_of
from app.wiring.listeners import own_listener, start_own, store_checks
from app.wiring.stores import (
    VERSION,
    Stores,
    open_payments,
    open_stores,
)

PUBLIC_TITLE: Final = "Doorbuster"
ADMIN_TITLE: Final = "Doorbuster, admin"


async def run_api(settings: Settings, stopping: asyncio.Event) -> None:
    """Serve shoppers and callbacks; the first api process serves operators too."""
    require(
        settings,
        "DOORBUSTER_AUTH__KEYS",
        "DOORBUSTER_AUTH__OPERATORS",
        "DOORBUSTER_FULFILMENT__DELIVERY_KEYS",
    )
    index = settings.process.index
    metrics = Metrics(role="api", process=f"api-{index}", version=VERSION)
    async with contextlib.AsyncExitStack() as opened:
        stores = await opened.enter_async_context(open_stores(settings, metrics))
        stage = await opened.enter_async_context(open_payments(settings, stores, metrics))
        api_url = settings.redis.api_url or settings.redis.url
        ScriptConnection(api_url, client_name="")  # a URL it cannot follow stops the start
        redis = open_redis(api_url, client_name="doorbuster-api")
        opened.push_async_callback(redis.aclose)
        api = Api(settings, stores, stage, metrics, redis)
        opened.push_async_callback(api.close)
        await api.check()
        readiness = Readiness()
        public = Listener(api.public(readiness), settings.web, readiness, api.buy_lane())
        admin = Listener(api.admin(readiness), settings.web)
        own = own_listener(settings, metrics, readiness)
        opened.push_async_callback(own.stop)
        opened.push_async_callback(admin.stop)
        opened.push_async_callback(public.stop)
        opened.push_async_callback(api.end_streams)  # before that: they would not end by themselves
        with contextlib.suppress(DoorbusterError):  # the first answer already tells its clock
            await api.clock.ask(redis)
        await public.start(settings.web.host, settings.web.port, reuse_port=True)
        if index == 0:
            await admin.start(settings.web.admin_host, settings.web.admin_port)
        await start_own(own, settings)
        readiness.started = True
        settle_garbage()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(api.clock.keep(redis, stopping))
            lag = tasks.create_task(measure_lag(metrics.loop_lag_seconds))
            await stopping.wait()
            lag.cancel()


class Api:
    """Everything an api process serves."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        stage: PaymentStage,
        metrics: Metrics,
        redis: Redis,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._stage = stage
        self._metrics = metrics
        self.clock = ServerClock(SystemClock())
        self.catalog = Catalog(stores.shards)
        self._acts = fulfilment_of(settings, stores.shards, stage, metrics)
        self._watch = Watch(stores.shards, settings.orders.events)
        self.stock = Stock(stores.shards, stores.redis, stores.deployment)
        api_url = settings.redis.api_url or settings.redis.url
        tally = PlacementTally()
        metrics.count_calls(tally.read)
        self.placement = Placement(
            stores.shards,
            stage.order_ids,
            partial(ScriptConnection, api_url, client_name="doorbuster-place"),
            self.clock,
            stores.deployment,
            settings.orders.placement,
            tally,
        )
        self.confirmations = Confirmations(redis, stores.shards, stores.deployment)
        self.authenticator = TokenAuthenticator(
            ShopperTokens(
                read_token_keys(settings.auth.keys),
                leeway_seconds=settings.auth.leeway_seconds,
                issuer=settings.auth.issuer or None,
                token_bytes_max=settings.auth.token_bytes_max,
                verified_tokens_max=settings.auth.verified_tokens_max,
            ),
            Operators(read_operator_tokens(settings.auth.operators)),
            SystemClock(),
        )

    async def check(self) -> None:
        """
        Refuse to serve what could not be read.

        Raises:
            BadConfiguration: personal fields are sealed under a key that is not configured.
        """
        await self._acts.addresses.check_keys()

    async def end_streams(self) -> None:
        """End the streams of events; their clients come back to another process."""
        await self._watch.close()

    async def close(self) -> None:
        """Answer everybody that waits, then stop."""
        await self.placement.close()
        await self.confirmations.close()
        await self.catalog.close()

    def public_endpoints(self) -> list[Endpoint]:
        """List what shoppers and providers may ask, without what describes and watches it."""
        return [
            *sale_endpoints(self._sale_desk()),
            *order_endpoints(self._order_desk()),
            *group_endpoints(self._group_desk()),
            *payment_endpoints(self._stage),
            *house_endpoints(House(self._stores.ledger, self._stage)),
            *event_endpoints(self._event_desk()),
            last_order_endpoint(
                LastOrders(self._stores.shards, self.catalog, self.clock.now_ms, {})
            ),
            *fulfilment_endpoints(self._fulfilment_desk()),
        ]

    def admin_endpoints(self) -> list[Endpoint]:
        """List what operators may ask, likewise."""
        return [
            *sale_admin_endpoints(self._sale_desk()),
            *stock_endpoints(self.catalog, self.stock, self._read_queues),
            *order_admin_endpoints(self._order_desk()),
            *payment_admin_endpoints(self._stage),
            *house_admin_endpoints(House(self._stores.ledger, self._stage)),
            *risk_admin_endpoints(self._stage),
            *fulfilment_admin_endpoints(self._fulfilment_desk()),
            *letter_endpoints(self._stores.shards, self.catalog),
            *ledger_endpoints(Books(self._stores.ledger)),
            audit_endpoint(self._audit),
        ]

    def public(self, readiness: Readiness) -> web.Application:
        """Build the shoppers' and providers' application."""
        endpoints = self.public_endpoints()
        document = openapi_endpoint(endpoints, title=PUBLIC_TITLE, version=VERSION)
        return self._build([*endpoints, document, *health_endpoints(readiness, {})])

    def buy_lane(self) -> BuyLane:
        """Build the fast lane of the public listener."""
        return BuyLane(
            self._order_desk(),
            self.authenticator,
            self._metrics.requests,
            Stamp(self.clock.now_ms),
        )

    def admin(self, readiness: Readiness) -> web.Application:
        """Build the operators' application."""
        endpoints = self.admin_endpoints()
        document = openapi_endpoint(endpoints, title=ADMIN_TITLE, version=VERSION)
        checks = store_checks(self._stores)
        return self._build(
            [
                *endpoints,
                document,
                *health_endpoints(readiness, checks),
                metrics_endpoint(self._metrics),
                targets_endpoint(self._settings.process.metrics_targets),
            ]
        )

    async def _read_queues(self) -> Queues:
        stores = self._stores
        return await read_all_queues(stores.shards, stores.redis, stores.deployment)

    async def _audit(self, sale: str | None) -> list[Equation]:
        stores = self._stores
        return await audit_all(stores.shards, stores.redis, stores.ledger, stores.deployment, sale)

    def _build(self, endpoints: Sequence[Endpoint]) -> web.Application:
        return build_application(
            endpoints,
            settings=self._settings.web,
            authenticator=self.authenticator,
            tally=self._metrics.requests,
            now_ms=self.clock.now_ms,
        )

    def _sale_desk(self) -> SaleDesk:
        sales = self._settings.sales
        if self._settings.embedded:
            sales = replace(sales, pay_within_seconds_min=1, group_window_seconds_min=6)
        return SaleDesk(
            shards=self._stores.shards,
            catalog=self.catalog,
            settings=sales,
            now_ms=self.clock.now_ms,
            available=self.stock.available,
            gate_seen=self.stock.gate_seen,
        )

    def _event_desk(self) -> EventDesk:
        return EventDesk(
            orders=self._order_desk(), watch=self._watch, settings=self._settings.orders.events
        )

    def _fulfilment_desk(self) -> FulfilmentDesk:
        return FulfilmentDesk(orders=self._order_desk(), acts=self._acts)

    def _group_desk(self) -> GroupDesk:
        return GroupDesk(
            shards=self._stores.shards, catalog=self.catalog, ids=self._stage.order_ids
        )

    def _order_desk(self) -> OrderDesk:
        return OrderDesk(
            shards=self._stores.shards,
            catalog=self.catalog,
            placement=self.placement,
            confirmations=self.confirmations,
            ids=self._stage.order_ids,
            settle_attempts=partial(settle_attempts, self._stage),
            money_of_order=partial(payments_of_order, self._stores.shards),
            delivery_of_order=self._acts.delivery_of_order,
            take_back=self._acts.take_back,
            count_answer=self._metrics.answers.count,
            now_ms=self.clock.now_ms,
        )
