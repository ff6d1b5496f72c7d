"""Answers that never arrive."""

from aiohttp import web


def cut_off(request: web.Request) -> web.Response:
    """
    Cut the connection, so that no answer arrives.

    To the merchant that is the same unknown as a gateway that does not answer in
    time, and is sooner over.
    """
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
