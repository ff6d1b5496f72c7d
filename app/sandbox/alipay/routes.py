"""
Alipay's one door, gateway.do: who signed comes in, and what goes out is signed.

Every answer has status 200 and says of itself that it is HTML. What the gateway
itself refuses, before it knows who asks, is not signed.

Source:
    docs/PAYMENTS.md §2.1 and §2.2.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from app.kernel.clock import Clock
from app.sandbox.alipay.funds import BILL_PATH, Funds
from app.sandbox.alipay.merchants import Merchant
from app.sandbox.alipay.question import (
    INVALID,
    MISSING,
    AlipayError,
    Answer,
    Question,
    ToPage,
)
from app.sandbox.alipay.signing import is_signed_by, write_answer
from app.sandbox.alipay.trades import Trades
from app.sandbox.alipay.words import read_time
from app.sandbox.desk import Desk
from app.sandbox.downloads import Downloads
from app.sandbox.lost import cut_off
from app.sandbox.records import Call
from app.sandbox.statements import Statements

_BILL_ADDRESS_MS: Final = 30_000  # how long a bill's address is good
_SUCCESS: Final = {"code": "10000", "msg": "Success"}
_FORM: Final = "application/x-www-form-urlencoded"


def add_alipay(
    app: web.Application, desk: Desk, merchants: Mapping[str, Merchant], clock: Clock
) -> None:
    """Mount every door of Alipay."""
    files = Downloads(clock, _BILL_ADDRESS_MS)
    statements = Statements(desk.book, desk.scripts, desk.settings.fee_bps)
    answers = {**Trades(desk).answers(), **Funds(desk, statements, files).answers()}
    AlipayRoutes(desk, merchants, answers, files).add_to(app)


class AlipayRoutes:
    """Handlers of gateway.do and of bills."""

    def __init__(
        self,
        desk: Desk,
        merchants: Mapping[str, Merchant],
        answers: Mapping[str, tuple[Answer, Call | None]],
        files: Downloads,
    ) -> None:
        self._desk = desk
        self._merchants = merchants
        self._answers = answers
        self._files = files

    def add_to(self, app: web.Application) -> None:
        """Mount every route."""
        app.router.add_get("/gateway.do", self._gateway)
        app.router.add_post("/gateway.do", self._gateway)
        app.router.add_get(BILL_PATH, self._bill)

    async def _gateway(self, request: web.Request) -> web.Response:
        parameters = await _parameters(request)
        method = parameters.get("method", "")
        try:
            question = self._recognise(parameters)
        except AlipayError as error:
            return _write(method, error.document(), None)
        answer, call = self._answers[method]
        try:
            reply = answer(question)
        except AlipayError as error:
            return _write(method, error.document(), question.merchant)
        if call is not None and self._desk.scripts.loses_answer(reply.number, call):
            return cut_off(request)
        if isinstance(reply, ToPage):
            page = self._desk.page_of(reply.number)
            return web.Response(status=303, headers={"Location": page})
        return _write(method, {**_SUCCESS, **reply.document}, question.merchant)

    def _recognise(self, parameters: Mapping[str, str]) -> Question:
        """
        Find out who asks.

        Raises:
            AlipayError: it is not known, so nothing is signed for it.
        """
        _check_form(parameters)
        merchant = self._merchants.get(parameters.get("app_id", ""))
        if merchant is None:
            raise AlipayError(sub_code="isv.invalid-app-id", code=INVALID)
        if parameters["method"] not in self._answers:
            raise AlipayError(sub_code="isv.invalid-method", code=INVALID)
        _check_certificates(merchant, parameters)
        if not is_signed_by(merchant, parameters):
            raise AlipayError(sub_code="isv.invalid-signature", code=INVALID)
        return Question(merchant, parameters)

    async def _bill(self, request: web.Request) -> web.Response:
        content = self._files.fetch(request.query.get("token", ""))
        if content is None:
            raise web.HTTPNotFound
        return web.Response(body=content, content_type="application/zip")


def _check_form(parameters: Mapping[str, str]) -> None:
    for name in ("method", "sign", "sign_type", "timestamp", "version"):
        if not parameters.get(name):
            raise AlipayError(sub_code=f"isv.missing-{name.replace('_', '-')}", code=MISSING)
    if parameters["sign_type"] != "RSA2":
        raise AlipayError(sub_code="isv.invalid-signature-type", code=INVALID)
    if parameters.get("charset", "").lower() != "utf-8":
        raise AlipayError(sub_code="isv.invalid-charset", code=INVALID)
    if parameters["version"] != "1.0":
        raise AlipayError(sub_code="isv.invalid-version", code=INVALID)
    if read_time(parameters["timestamp"]) is None:
        raise AlipayError(sub_code="isv.invalid-timestamp", code=INVALID)


def _check_certificates(merchant: Merchant, parameters: Mapping[str, str]) -> None:
    """In certificate mode a request names its certificate and the root it trusts."""
    known = merchant.certificates
    if known is None:
        return
    if parameters.get("app_cert_sn") != known.app_serial:
        raise AlipayError(sub_code="isv.invalid-app-cert-sn", code=INVALID)
    if parameters.get("alipay_root_cert_sn") != known.root_serial:
        raise AlipayError(sub_code="isv.invalid-alipay-root-cert-sn", code=INVALID)


async def _parameters(request: web.Request) -> dict[str, str]:
    """Read the query and the form as one; decoded once."""
    told = dict(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
    if request.content_type == _FORM:
        form = (await request.read()).decode("utf-8", "replace")
        told |= dict(parse_qsl(form, keep_blank_values=True))
    return told


def _write(method: str, document: Mapping[str, object], merchant: Merchant | None) -> web.Response:
    name = f"{method.replace('.', '_')}_response" if method else "error_response"
    body = write_answer(name, document, merchant)
    return web.Response(body=body, headers={"Content-Type": "text/html;charset=utf-8"})
