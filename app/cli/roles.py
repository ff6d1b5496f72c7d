"""
The roles apart, for real deployments: `serve`, `worker`, `coordinator`, `sandbox`.

Each imports only what it plays: the four together are half as much again.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Final

import click
import uvloop

from app.cli.exits import Exit
from app.kernel.errors import BadConfiguration, Unavailable
from app.kernel.failpoints import arm_failpoints
from app.settings import Settings, read_settings
from app.telemetry import log

Role = Callable[[Settings, asyncio.Event], Awaitable[None]]
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@click.command()
def serve() -> None:
    """Take orders: one api process."""
    _play("api", "run_api")


@click.command()
def worker() -> None:
    """Flush, close, move, enquire, refund, post."""
    _play("worker", "run_worker")


@click.command()
def coordinator() -> None:
    """Grant units, open and recover buckets, renew their leases."""
    _play("coordinator", "run_coordinator")


@click.command()
def sandbox() -> None:
    """Be the other side of a payment, for demos and tests."""
    _play("sandbox", "run_sandbox_role")


def _play(name: str, function: str) -> None:
    """Run a role, a function of the wiring, until SIGTERM or Ctrl-C; it drains, leaves with 0."""
    role: Role = getattr(import_module(f"app.wiring.{name}"), function)
    try:
        settings = read_settings()
        log.configure(name, process=f"{name}-{settings.process.index}")
        arm_failpoints(settings.process.failpoints)
        uvloop.run(_until_told(role, settings))
    except BadConfiguration as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.FAILED)
    except (Unavailable, OSError) as error:
        click.echo(str(error), err=True)
        sys.exit(Exit.UNREACHABLE)


async def _until_told(role: Role, settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for stop in _STOP_SIGNALS:
        loop.add_signal_handler(stop, stopping.set)
    await role(settings, stopping)
