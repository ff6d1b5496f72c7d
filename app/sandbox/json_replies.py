"""JSON answers that nobody signs."""

import msgspec
from aiohttp import web


def json_reply(status: int, message: msgspec.Struct) -> web.Response:
    """Answer with one document."""
    return web.Response(
        status=status, body=msgspec.json.encode(message), content_type="application/json"
    )
