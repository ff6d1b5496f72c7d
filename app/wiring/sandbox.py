"""The sandbox gateway: the other side of a payment."""

import asyncio
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from app.kernel.errors import BadConfiguration
from app.sandbox.alipay.merchants import AlipayMerchant
from app.sandbox.server import run_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.wechatpay.merchants import WechatpayMerchant
from app.settings import PREFIX, Settings
from app.wiring.stores import (
    SANDBOX_KEY_ID,
)

Merchant = TypeVar("Merchant", WechatpayMerchant, AlipayMerchant)

_WECHATPAY: Final = msgspec.json.Decoder(tuple[WechatpayMerchant, ...])
_ALIPAY: Final = msgspec.json.Decoder(tuple[AlipayMerchant, ...])


async def run_sandbox_role(settings: Settings, stopping: asyncio.Event) -> None:
    """Serve the sandbox gateway."""
    sandbox = SandboxSettings(
        host=settings.sandbox.host,
        port=settings.sandbox.port,
        journal_dir=Path(settings.sandbox.journal_dir),
        keys={SANDBOX_KEY_ID: settings.payments.sandbox_key.encode()},
        clock_factor=settings.sandbox.clock_factor,
        wechatpay=_merchants("WECHATPAY", settings.sandbox.wechatpay, _WECHATPAY),
        alipay=_merchants("ALIPAY", settings.sandbox.alipay, _ALIPAY),
        fee_bps=settings.sandbox.fee_bps,
    )
    await run_sandbox(sandbox, stopping, lambda _url: None)


def _merchants(
    name: str, text: str, decoder: msgspec.json.Decoder[tuple[Merchant, ...]]
) -> tuple[Merchant, ...]:
    """
    Read whom the gateway knows over a protocol.

    Raises:
        BadConfiguration: it is no list of such documents; no key of it is told.
    """
    try:
        return decoder.decode(text or "[]")
    except msgspec.DecodeError as error:
        raise BadConfiguration(setting=f"{PREFIX}SANDBOX__{name}", why=str(error)) from error
