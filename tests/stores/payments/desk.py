"""
Both sides of a payment on loopback: our routes, the real gateway, two real shards.

The one clock is shared and shows the present until a test moves it on, so that
signatures, expiries and rows agree.
"""

import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from app.kernel.ids import OrderKey
from app.orders.sealing import OrderIds
from app.payments.callback import Callbacks
from app.payments.intent import Attempt, AttemptNumber
from app.payments.provider import HttpReply, Product
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.providers.sandbox_wire import (
    CallbackMessage,
    Keys,
    PaymentMessage,
    Purpose,
    RefundMessage,
    Signed,
    sign,
)
from app.payments.routes import endpoints
from app.payments.settings import PaymentSettings
from app.payments.stage import PaymentStage, Providers
from app.payments.start import PaymentWish, Started, start_payment
from app.payments.store import read_attempt
from app.payments.tally import PaymentTally
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.storage.shards import Shard, Shards
from app.telemetry.requests import RequestTally
from app.web.access import Operator
from app.web.application import build_application
from app.web.settings import WebSettings
from tests.fakes import FixedClock

KEYS: Final = {"k1": b"k" * 32}
CALLBACK_PATH: Final = "/v1/callbacks/sandbox"
PRICE_MINOR: Final = 8_880
SETTINGS: Final = PaymentSettings(
    query_pauses_ms=(1_000,),
    refund_pauses_ms=(1,),
    creating_ms_max=5_000,
    settle_ms_max=2_000,
    callback_seconds=2.0,
)

INSERT_ORDER: Final = """
INSERT INTO orders (sale, bucket, epoch, seq, shopper, sku, quantity, units_held, price_minor,
                    total_minor, currency, merchant, state, reason, placed_at, pay_by, paid_at,
                    closed_at, key_hash, fingerprint)
VALUES ($1, $2, $3, $4, $5, 'tea', 1, CASE WHEN $6::text = 'closed' THEN 0 ELSE 1 END, $7, $7,
        'CNY', 'acme', $6::text::order_state,
        CASE WHEN $6 IN ('closing', 'closed') THEN 'expired'::order_reason END, $8, $9,
        CASE WHEN $6 = 'paid' THEN $8::timestamptz END,
        CASE WHEN $6 = 'closed' THEN $9::timestamptz END,
        decode(md5($4::bigint || $5::text), 'hex'), '\\x0102030405060708')"""
INSERT_LEASE: Final = """
INSERT INTO bucket_leases
    (sale, bucket, epoch, state, granted, reserved, home_shard, sale_id, kind, sku, merchant,
     price_minor, currency, limit_per_shopper, opens_at, closes_at, pay_within_seconds, orders_seen)
VALUES (1, 0, 1, 'open', 100, 100, 1, 'spring', 'seckill', 'tea', 'acme', 8880, 'CNY', 2,
        now() - interval '1 hour', now() + interval '1 hour', 900, 1000)
ON CONFLICT DO NOTHING"""
CLOSE_ORDER: Final = """
UPDATE orders SET state = 'closed', reason = 'expired', units_held = 0, closed_at = now()
WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND seq = $4 AND state IN ('pending', 'closing')"""
SET_CLOSING: Final = """
UPDATE orders SET state = 'closing', reason = 'expired'
WHERE sale = $1 AND bucket = $2 AND epoch = $3 AND seq = $4 AND state = 'pending'"""
MAKE_DUE: Final = """
WITH asked AS (
    UPDATE payment_attempts SET next_query_at = now() WHERE state IN ('created', 'open')
) UPDATE refunds SET next_try_at = now() WHERE state IN ('requested', 'sent', 'unknown')"""


class ShopperByHeader:
    """Takes the shopper's word for it."""

    def shopper(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("Shopper")

    def operator(self, _headers: Mapping[str, str]) -> Operator | None:
        return None


class Desk:
    """Everything a test of payments needs to act and to look."""

    def __init__(
        self,
        stage: PaymentStage,
        clock: FixedClock,
        client: aiohttp.ClientSession,
        urls: tuple[str, str],
        counts: tuple[CollectorRegistry, RequestTally],
    ) -> None:
        self.metrics, self.requests = counts
        self.stage = stage
        self.clock = clock
        self.client = client
        self.url, self.gateway_url = urls
        self._callbacks = Callbacks(stage)
        self._seq = itertools.count()

    @property
    def provider(self) -> SandboxProvider:
        provider = self.stage.providers.find("sandbox", "")
        assert isinstance(provider, SandboxProvider)
        return provider

    @property
    def shard(self) -> Shard:
        return self.stage.shards.of(1, 0)

    def stage_with(self, providers: Providers) -> PaymentStage:
        return replace(self.stage, providers=providers)

    async def place(
        self,
        *,
        state: str = "pending",
        shopper: str = "ann",
        pay_in: timedelta = timedelta(hours=1),
    ) -> OrderKey:
        """Write a confirmed order whose deadline is `pay_in` from now."""
        key = OrderKey(1, 0, 1, next(self._seq))
        now = self.stage.now()
        placed_at = now - timedelta(minutes=1)
        await self.execute(INSERT_ORDER, *key, shopper, state, PRICE_MINOR, placed_at, now + pay_in)
        return key

    def order_id(self, key: OrderKey, shopper: str = "ann") -> str:
        return self.stage.order_ids.write(key, shopper)

    def wish(self, key: OrderKey, **changes: Any) -> PaymentWish:
        asked: dict[str, Any] = {
            "order_id": self.order_id(key),
            "shopper": "ann",
            "idempotency_key": "key-0123456789abcdef",
            "provider": "sandbox",
            "product": Product.QR,
        }
        return PaymentWish(**{**asked, **changes})

    async def start(self, key: OrderKey, **changes: Any) -> Attempt:
        """Start a payment that the gateway knows of, and return its attempt."""
        started = await start_payment(self.stage, self.wish(key, **changes))
        assert isinstance(started, Started), started
        return await self.attempt(started.payment.payment_id)

    async def attempt(self, number: str) -> Attempt:
        return await read_attempt(self.shard, AttemptNumber(number))

    async def play(self, number: str, outcome: str = "pay", **how: object) -> int:
        """Let the other side act, as tests and load do."""
        url = f"{self.gateway_url}/control/payments/{number}"
        async with self.client.post(url, json={"outcome": outcome, **how}) as response:
            return response.status

    def message(self, attempt: Attempt, **changes: Any) -> PaymentMessage:
        """What the gateway says of a payment that was paid."""
        told: dict[str, Any] = {
            "number": attempt.number,
            "merchant_id": self.provider.account.merchant_id,
            "app_id": self.provider.account.app_id,
            "state": "paid",
            "amount_minor": attempt.amount_minor,
            "currency": attempt.currency,
            "page": "",
            "provider_number": f"SBP{attempt.number}",
            "paid_at": self.stage.now(),
        }
        return PaymentMessage(**{**told, **changes})

    def signed(self, message: bytes, *, keys: Mapping[str, bytes] = KEYS) -> dict[str, str]:
        signed = Signed(Purpose.CALLBACK, "POST", CALLBACK_PATH, message)
        return sign(Keys(keys), signed, self.clock.now_ms() // 1000, "n" * 32)

    def callback(self, payment: PaymentMessage, notification_id: str = "evt-1") -> bytes:
        told = CallbackMessage(id=notification_id, created_at=self.stage.now(), payment=payment)
        return msgspec.json.encode(told)

    def refund_callback(self, refund: RefundMessage, notification_id: str) -> bytes:
        told = CallbackMessage(id=notification_id, created_at=self.stage.now(), refund=refund)
        return msgspec.json.encode(told)

    async def receive(self, raw: bytes, headers: Mapping[str, str] | None = None) -> HttpReply:
        """Hand a callback to this side, signed as the gateway signs unless told otherwise."""
        told = self.signed(raw) if headers is None else headers
        return await self._callbacks.receive(self.provider, told, raw)

    async def close_order(self, key: OrderKey) -> None:
        await self.execute(CLOSE_ORDER, *key)

    async def set_closing(self, key: OrderKey) -> None:
        await self.execute(SET_CLOSING, *key)

    async def make_due(self) -> None:
        await self.execute(MAKE_DUE)

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.shard.connection() as connection:
            await connection.execute(statement, *arguments)

    async def rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        async with self.shard.connection() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]

    async def order_state(self, key: OrderKey) -> str:
        (row,) = await self.rows(
            "SELECT state FROM orders WHERE (sale, bucket, epoch, seq) = ($1, $2, $3, $4)", *key
        )
        return str(row["state"])

    async def facts(self) -> list[tuple[str, str]]:
        statement = "SELECT kind, business_id FROM outbox WHERE kind <> 'callback' ORDER BY id"
        rows = await self.rows(statement)
        return [(row["kind"], row["business_id"]) for row in rows]

    async def outcomes(self) -> list[str]:
        rows = await self.rows("SELECT outcome FROM provider_events ORDER BY recorded_at")
        return [row["outcome"] for row in rows]

    async def refunds(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM refunds ORDER BY number")

    def counted_callbacks(self, result: str) -> float:
        labels = {"provider": "sandbox", "result": result}
        name = "doorbuster_payment_callbacks_total"
        return self.metrics.get_sample_value(name, labels) or 0.0

    def counted_requests(self, status: int) -> int:
        """How many requests our side answered with this status."""
        return sum(
            int(sample.value)
            for metric in self.requests.collect()
            for sample in metric.samples
            if sample.name == "doorbuster_requests_total" and sample.labels["status"] == str(status)
        )


@contextlib.asynccontextmanager
async def open_desk(shards: Shards, journal_dir: Path) -> AsyncIterator[Desk]:
    """Start the gateway and our routes, each on a port of its own."""
    clock = FixedClock(time.time_ns() // 1_000_000)
    metrics, requests = CollectorRegistry(), RequestTally()
    gateway = SandboxSettings(
        port=0, journal_dir=journal_dir, keys=KEYS, clock_factor=1_000, refund_after_ms=0
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with (
            serve_sandbox(gateway, clock) as gateway_url,
            SandboxProvider(
                SandboxProviderSettings(
                    url=gateway_url, callback_url=url + CALLBACK_PATH, keys=KEYS
                ),
                clock,
            ) as provider,
        ):
            stage = PaymentStage(
                shards=shards,
                order_ids=OrderIds(b"0123456789abcdef"),
                providers=Providers([provider]),
                clock=clock,
                settings=SETTINGS,
                tally=PaymentTally(metrics),
            )
            async with _serving(stage, listening, requests), aiohttp.ClientSession() as client:
                desk = Desk(stage, clock, client, (url, gateway_url), (metrics, requests))
                await desk.execute(INSERT_LEASE)
                yield desk


@contextlib.asynccontextmanager
async def _serving(
    stage: PaymentStage, listening: socket.socket, requests: RequestTally
) -> AsyncIterator[None]:
    app = build_application(
        endpoints(stage),
        settings=WebSettings(),
        authenticator=ShopperByHeader(),
        tally=requests,
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()
