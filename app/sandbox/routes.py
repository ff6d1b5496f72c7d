"""The pages for people: what can be paid, and one payment with its buttons."""

from typing import Final

from aiohttp import web

from app.payments.provider import PayState
from app.sandbox.book import Refused
from app.sandbox.control import Control, ControlOutcome, Stage
from app.sandbox.desk import Desk
from app.sandbox.pages import CONTENT_SECURITY_POLICY, list_page, payment_page
from app.sandbox.records import Payment

_LISTED_MAX: Final = 100


class PageRoutes:
    """Handlers of the pages; they work without JavaScript."""

    def __init__(self, desk: Desk, stage: Stage) -> None:
        self._desk = desk
        self._stage = stage

    def add_to(self, app: web.Application) -> None:
        """Mount every route."""
        app.router.add_get("/", self._list)
        app.router.add_get("/pay/{number}", self._show)
        app.router.add_post("/pay/{number}", self._press)

    async def _show(self, request: web.Request) -> web.Response:
        payment = self._find(request)
        return _html(payment_page(payment, self._desk.page_of(payment.number)))

    async def _press(self, request: web.Request) -> web.Response:
        """Do what the person at the page pressed; only an open payment has buttons."""
        payment = self._find(request)
        form = await request.post()
        pressed = form.get("press")
        if payment.state is PayState.NOT_PAID and pressed in ("pay", "decline"):
            self._stage.play(payment, Control(outcome=ControlOutcome(str(pressed))))
        back = "/" if form.get("from") == "list" else f"/pay/{payment.number}"
        return web.Response(status=303, headers={"Location": back})

    async def _list(self, _request: web.Request) -> web.Response:
        return _html(list_page(self._desk.book.open_payments(_LISTED_MAX)))

    def _find(self, request: web.Request) -> Payment:
        payment = self._desk.book.payment(request.match_info["number"])
        if isinstance(payment, Refused):
            raise web.HTTPNotFound
        return payment


def _html(page: str) -> web.Response:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
    return web.Response(text=page, content_type="text/html", headers=headers)
