"""
Ask Alipay with which certificate it signs now, when a notification says that we may not know.

A notification does not name its certificate. One that none of our keys signed is forged, or is
signed with a certificate that came after ours. It is refused either way, so that Alipay repeats
it, and raises a doubt here; the doubt is settled by a question of our own, over our own
connection. However many notifications raise it, the question is put at most once in each pause.

Source:
    docs/PAYMENTS.md §2.4; docs/decisions/0035-alipay-unknown-certificate.md.
"""

import asyncio
from collections.abc import Awaitable, Callable


class CertificateRenewal:
    """The doubt of one process about one app's certificates, and how it is settled."""

    def __init__(self, ask: Callable[[], Awaitable[bool]], pause_ms: int) -> None:
        """
        Begin without a doubt.

        Args:
            ask: puts the question and learns from the answer; says whether there was one.
            pause_ms: between two questions.
        """
        self._ask = ask
        self._pause_ms = pause_ms
        self._doubted = asyncio.Event()

    def doubt(self) -> None:
        """Ask as soon as the pause after the last question is over; no I/O."""
        self._doubted.set()

    async def renew_and_rest(self) -> int:
        """
        Wait for a doubt, ask, and rest: one pass of a loop.

        Returns:
            1, always: the waiting is part of the pass.
        """
        await self._doubted.wait()
        self._doubted.clear()
        if not await self._ask():
            self._doubted.set()  # nobody answered: the doubt outlives the pause
        await asyncio.sleep(self._pause_ms / 1000)
        return 1
