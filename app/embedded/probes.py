"""Ask a role of ours whether it serves; nobody answering is an answer, not an error."""

import asyncio
from typing import Final

from app.embedded.ports import LOCALHOST

PROBE_WAIT_SECONDS: Final = 1.0


async def answers_ready(port: int) -> bool:
    """Whether `GET /readyz` is answered with 200."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {LOCALHOST}:{port}\r\nConnection: close\r\n\r\n"
    return (await first_bytes(port, request.encode(), 12)).endswith(b" 200")


async def listens(port: int) -> bool:
    """Whether somebody accepts connections."""
    try:
        async with asyncio.timeout(PROBE_WAIT_SECONDS):
            _, writer = await asyncio.open_connection(LOCALHOST, port)
    except OSError:  # refused, or no answer in time (TimeoutError is one)
        return False
    writer.close()
    return True


async def first_bytes(port: int, greeting: bytes, count: int) -> bytes:
    """Send a greeting to a port of this machine; give the first bytes of the answer, or b""."""
    try:
        async with asyncio.timeout(PROBE_WAIT_SECONDS):
            reader, writer = await asyncio.open_connection(LOCALHOST, port)
            try:
                writer.write(greeting)
                return await reader.readexactly(count)
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
        return b""
