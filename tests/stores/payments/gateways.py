"""A provider whose answers get lost after the gateway has done the work."""

from typing import Any

from app.payments.provider import Outcome, RefundRequest, RefundSnapshot, Result
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
