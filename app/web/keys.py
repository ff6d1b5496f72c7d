"""What the plumbing hands to handlers: typed keys of the request and of the application."""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from app.web.access import Operator
from app.web.settings import WebSettings

REQUEST_ID: Final = web.RequestKey("request_id", str)
SHOPPER: Final = web.RequestKey("shopper", str)
OPERATOR: Final = web.RequestKey("operator", Operator)
SPEAKS_MSGPACK: Final = web.RequestKey("speaks_msgpack", bool)

SETTINGS: Final = web.AppKey("web_settings", WebSettings)
NOW_MS: Final[web.AppKey[Callable[[], int]]] = web.AppKey("now_ms")
