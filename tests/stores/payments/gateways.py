"""Providers whose answers get lost, or never come, although the gateway does its work."""

import asyncio
from typing import Any

from app.payments.provider import (
    AttemptReference,
    MerchantAccount,
    Outcome,
    RefundRequest,
    RefundSnapshot,
    Result,
)
from app.payments.providers.sandbox import SandboxProvider


class Losing:
    """The real provider, but for the answers to refunds, which never arrive."""

    def __init__(self, real: SandboxProvider) -> None:
        self._real = real
        self.refunds = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def refund(self, refund: RefundRequest) -> Result[RefundSnapshot]:
        self.refunds += 1
        await self._real.refund(refund)
        return Result(Outcome.UNKNOWN)


class Hanging:
    """The real provider, but for one attempt, about which it never answers."""

    def __init__(self, real: SandboxProvider, number: str) -> None:
        self._real = real
        self._number = number
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def close(self, attempt: AttemptReference) -> Result[None]:
        if attempt.number != self._number:
            return await self._real.close(attempt)
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError


class Renamed:
    """The real provider, but for who we say that we are there."""

    def __init__(self, real: SandboxProvider, account: MerchantAccount) -> None:
        self._real = real
        self.account = account

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Silent(Renamed):
    """Another account at the real provider, which is never answered."""

    async def close(self, _attempt: AttemptReference) -> Result[None]:
        await asyncio.Event().wait()
        raise AssertionError
