"""
Measure callbacks alone: signed messages checked, applied and committed, one after another.

    python -m loadtest.bench.verify_callbacks --callbacks 5000 --at-once 32

Embedded Postgres in a temporary folder, `fsync` on; each message pays an order of
its own. HTTP is left out: what is measured is from the raw body to the commit, and
processor time per callback is what a busy machine leaves comparable.
"""

import asyncio
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import msgspec
import uvloop

from app.embedded.stores import EmbeddedStores
from app.kernel.clock import SystemClock, instant
from app.orders.sealing import OrderIds
from app.payments.audit import audit_payments
from app.payments.callback import Callbacks
from app.payments.provider import PayState
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.providers.sandbox_wire import (
    CallbackMessage,
    Keys,
    PaymentMessage,
    Purpose,
    Signed,
    sign,
)
from app.payments.settings import PaymentSettings
from app.payments.stage import PaymentStage, Providers
from app.payments.tally import PaymentTally
from app.storage.migrate import migrate_all
from app.storage.shards import DatabaseSettings, Shards
from app.telemetry import log
from app.telemetry.metrics import Metrics
from loadtest.bench.cpu import read_cpu
from loadtest.bench.payable import PRICE_MINOR, open_payments

PATH: Final = "/v1/callbacks/sandbox"
KEYS: Final = {"bench": b"k" * 32}


@click.command()
@click.option("--callbacks", default=5_000, show_default=True, help="Each pays one order.")
@click.option("--at-once", default=32, show_default=True, help="Callbacks under way at once.")
def main(callbacks: int, at_once: int) -> None:
    """Take callbacks and print how fast it went."""
    log.configure("bench")  # a role writes a line of JSON for each, too
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_run(Path(folder), callbacks, at_once))


async def _run(folder: Path, callbacks: int, at_once: int) -> None:
    async with EmbeddedStores(folder, with_valkey=False, discard=True) as stores:
        await migrate_all(stores.shard_urls, stores.ledger_url, "bench")
        shards = Shards(stores.shard_urls, DatabaseSettings())
        await shards.read_map()
        try:
            async with SandboxProvider(_settings(), SystemClock()) as provider:
                await _measure(_stage(shards, provider), provider, callbacks, at_once, stores)
        finally:
            await shards.close()


async def _measure(
    stage: PaymentStage,
    provider: SandboxProvider,
    callbacks: int,
    at_once: int,
    stores: EmbeddedStores,
) -> None:
    numbers = await open_payments(stage.shards, stage.order_ids, provider.code, 1, callbacks)
    messages = iter([_message(provider, number) for number in numbers])
    groups = {"python": (os.getpid(),), "postgres": (stores.pids["postgres"],)}
    before, began = read_cpu(groups), time.monotonic()
    taking = Callbacks(stage)
    await asyncio.gather(*(_take_all(taking, provider, messages) for _ in range(at_once)))
    seconds, used = time.monotonic() - began, read_cpu(groups).since(before)
    broken = [one for one in await audit_payments(stage.shards) if one.holds is False]
    click.echo(f"{platform.python_version()}, {os.cpu_count()} cores, {at_once} at once")
    click.echo(f"{callbacks / seconds:,.0f} callbacks/s, each verified and committed")
    for name, one in used.used.items():
        click.echo(f"{name}: {one / callbacks * 1e6:,.0f} us of processor time each")
    click.echo(f"audit: {broken or 'passes'}")


async def _take_all(
    callbacks: Callbacks,
    provider: SandboxProvider,
    messages: Iterator[tuple[dict[str, str], bytes]],
) -> None:
    for headers, raw in messages:
        reply = await callbacks.receive(provider, headers, raw)
        assert reply.status == 200, reply


def _message(provider: SandboxProvider, number: str) -> tuple[dict[str, str], bytes]:
    """Write what the gateway would post, and sign it as the gateway would."""
    now_ms = SystemClock().now_ms()
    payment = PaymentMessage(
        number=number,
        merchant_id=provider.account.merchant_id,
        app_id=provider.account.app_id,
        state=PayState.PAID,
        amount_minor=PRICE_MINOR,
        currency="CNY",
        page="",
        provider_number=f"SBP{number}",
        paid_at=instant(now_ms),
    )
    told = CallbackMessage(id=f"evt-{number}", created_at=instant(now_ms), payment=payment)
    raw = msgspec.json.encode(told)
    signed = Signed(Purpose.CALLBACK, "POST", PATH, raw)
    return sign(Keys(KEYS), signed, now_ms // 1000, "n" * 32), raw


def _settings() -> SandboxProviderSettings:
    return SandboxProviderSettings(
        url="http://127.0.0.1:9", callback_url=f"http://127.0.0.1{PATH}", keys=KEYS
    )


def _stage(shards: Shards, provider: SandboxProvider) -> PaymentStage:
    return PaymentStage(
        shards=shards,
        order_ids=OrderIds(b"0123456789abcdef"),
        providers=Providers([provider]),
        clock=SystemClock(),
        settings=PaymentSettings(),
        tally=PaymentTally(Metrics(role="bench", process="bench", version="").registry),
    )


if __name__ == "__main__":
    main()
