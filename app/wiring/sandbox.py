"""The sandbox gateway: the other side of a payment."""

import asyncio
from pathlib import Path

from app.sandbox.server import run_sandbox
from app.sandbox.settings import SandboxSettings
from app.settings import Settings
from app.wiring.stores import (
    SANDBOX_KEY_ID,
)


async def run_sandbox_role(settings: Settings, stopping: asyncio.Event) -> None:
    """Serve the sandbox gateway."""
    sandbox = SandboxSettings(
        host=settings.sandbox.host,
        port=settings.sandbox.port,
        journal_dir=Path(settings.sandbox.journal_dir),
        keys={SANDBOX_KEY_ID: settings.payments.sandbox_key.encode()},
        clock_factor=settings.sandbox.clock_factor,
    )
    await run_sandbox(sandbox, stopping, lambda _url: None)
