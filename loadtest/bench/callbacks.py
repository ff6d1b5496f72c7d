"""Callbacks over HTTP: checked, applied, committed and acknowledged, and nothing else runs."""

import signal
from dataclasses import replace
from typing import Final

import msgspec

from app.embedded.payment_keys import MCHID, WECHATPAY_APP, keep_payment_keys
from app.embedded.run_secrets import keep_secrets
from app.kernel.equation import Equation, equal
from app.orders.sealing import OrderIds
from app.payments.audit import audit_payments
from app.payments.providers.sandbox import SandboxProviderSettings
from app.sandbox.wechatpay.merchants import WechatpayMerchant
from app.storage.shards import Shards
from loadtest.bench.callback_deck import CallbackDeck
from loadtest.bench.job import ClosedLoop, Job
from loadtest.bench.measurement import measurement
from loadtest.bench.payable import open_payments
from loadtest.bench.rig import Rig, in_words
from loadtest.bench.stand import BUCKETS, Stand

ACKNOWLEDGED: Final = {"k": "SUCCESS", "kw": "http_204"}  # in each provider's own words
PROVIDERS: Final = {"k": "sandbox", "kw": "wechatpay"}
HOST: Final = "http://127.0.0.1"
COUNTS: Final = """
SELECT (SELECT count(*) FROM orders WHERE state = 'paid'),
       (SELECT count(*) FROM payment_attempts WHERE state = 'paid'),
       (SELECT count(*) FROM order_events WHERE event = 'payment_captured'),
       (SELECT count(*) FROM provider_events WHERE outcome = 'paid'),
       (SELECT count(*) FROM outbox WHERE kind = 'payment_captured')"""
_COUNTED: Final = ("orders", "attempts", "events", "messages", "facts")


async def measure_callbacks(rig: Rig) -> None:
    """Measure (k), the sandbox's HMAC, and the same with WeChat Pay's RSA and AES."""
    for variant in PROVIDERS:
        async with rig.stand() as stand:
            await _measure(rig, stand, variant)


async def _measure(rig: Rig, stand: Stand, variant: str) -> None:
    stand.signal_worker(signal.SIGSTOP)  # no fact is posted and nothing is asked meanwhile
    try:
        deck = await _deal(stand, variant, rig.options.callbacks)
        job = Job(
            port=stand.port, connections=rig.options.connections, pace=ClosedLoop(), deck=deck
        )
        tally, cpu = await rig.load(job, stand.processes)
    finally:
        stand.signal_worker(signal.SIGCONT)
    counted = ACKNOWLEDGED[variant]
    figure = measurement(variant, tally, cpu, counted=counted, generators=rig.options.generators)
    broken = await _audit(stand.shards, tally.totals[counted])
    rig.note(replace(figure, broken=in_words(broken), is_audited=True))


async def _deal(stand: Stand, variant: str, count: int) -> CallbackDeck:
    """Write orders to pay, and let the gateway's side sign that they are paid."""
    secrets, keys = keep_secrets(stand.data_dir), keep_payment_keys(stand.data_dir)
    ids = OrderIds(bytes.fromhex(secrets.order_id_key))
    numbers = await open_payments(stand.shards, ids, PROVIDERS[variant], BUCKETS, count)
    us = SandboxProviderSettings(url=HOST, callback_url=HOST, keys={"": b""})
    is_plain = variant == "k"
    document = msgspec.convert(keys.wechatpay_merchant_document(), WechatpayMerchant)
    return CallbackDeck(
        host=f"127.0.0.1:{stand.port}",
        seal=secrets.sandbox_key if is_plain else document,
        account=(us.merchant_id, us.app_id) if is_plain else (MCHID, WECHATPAY_APP),
        numbers=tuple(numbers),
    )


async def _audit(shards: Shards, acknowledged: int) -> list[Equation]:
    """Hold every acknowledgement against what is committed; return what does not hold."""
    totals = dict.fromkeys(_COUNTED, 0)
    for shard in shards.all:
        async with shard.connection() as connection:
            (row,) = await connection.fetch(COUNTS)
        for name, value in zip(_COUNTED, row, strict=True):
            totals[name] += value
    equations = [
        equal("P2", f"callbacks, {name}", (name, value), ("acknowledged", acknowledged))
        for name, value in totals.items()
    ]
    return [one for one in (*equations, *await audit_payments(shards)) if one.holds is False]
