"""
The one place of the fault suite where time passes on purpose.

A fault lasts, a shopper thinks, a slow link is slow: that is what is being played. Waiting for
something to become true is another matter, and goes through `tests.waiting.eventually`.
"""

import asyncio


async def let_pass(seconds: float) -> None:
    """Let so much time go by."""
    await asyncio.sleep(seconds)
