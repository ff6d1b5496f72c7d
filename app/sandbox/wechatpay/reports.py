"""
What WeChat Pay hands out besides payments: its certificates, and bills.

Source:
    docs/PAYMENTS.md §1.4 and §1.10.
"""

import gzip
import hashlib
from collections.abc import Callable
from datetime import date
from typing import Final

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from app.kernel.clock import instant, unix_ms
from app.sandbox.desk import Desk
from app.sandbox.downloads import Downloads
from app.sandbox.numbers import BEIJING
from app.sandbox.records import Wire
from app.sandbox.statements import LineKind, StatementLine, Statements
from app.sandbox.wechatpay.bills import fund_bill, trade_bill
from app.sandbox.wechatpay.door import Door, Question, Reply, WechatpayError
from app.sandbox.wechatpay.signing import seal
from app.sandbox.wechatpay.words import beijing_time

_KINDS: Final = {
    "ALL": frozenset(LineKind),
    "SUCCESS": frozenset({LineKind.PAYMENT}),
    "REFUND": frozenset({LineKind.REFUND}),
}
_ACCOUNTS: Final = frozenset({"BASIC", "OPERATION", "FEES"})


class ReportRoutes:
    """Handlers of /v3/certificates, /v3/bill and /v3/billdownload."""

    def __init__(self, desk: Desk, door: Door, statements: Statements, files: Downloads) -> None:
        self._desk = desk
        self._door = door
        self._statements = statements
        self._files = files

    def add_to(self, app: web.Application) -> None:
        """Mount every route."""
        signed = self._door.signed
        app.router.add_get("/v3/certificates", signed(self._certificates))
        app.router.add_get("/v3/bill/tradebill", signed(self._trade_bill))
        app.router.add_get("/v3/bill/fundflowbill", signed(self._fund_bill))
        app.router.add_get("/v3/billdownload/file", signed(self._file))

    def _certificates(self, question: Question) -> Reply:
        merchant = question.merchant
        certificate = merchant.platform_certificate
        entry = {
            "serial_no": merchant.platform_serial,
            "effective_time": beijing_time(unix_ms(certificate.not_valid_before_utc)),
            "expire_time": beijing_time(unix_ms(certificate.not_valid_after_utc)),
            "encrypt_certificate": seal(
                merchant, certificate.public_bytes(Encoding.PEM), "certificate"
            ),
        }
        return Reply("", {"data": [entry]})

    def _trade_bill(self, question: Question) -> Reply:
        kinds = _KINDS.get(question.query.get("bill_type", "ALL"))
        if kinds is None:
            raise WechatpayError(400, "PARAM_ERROR", "bill_type")
        fee_bps = self._desk.settings.fee_bps
        return self._offer(
            question,
            lambda lines: trade_bill([one for one in lines if one.kind in kinds], fee_bps),
        )

    def _fund_bill(self, question: Question) -> Reply:
        account = question.query.get("account_type", "BASIC")
        if account not in _ACCOUNTS:
            raise WechatpayError(400, "PARAM_ERROR", "account_type")
        # All money of a sandbox merchant is on its basic account.
        is_basic = account == "BASIC"
        return self._offer(question, lambda lines: fund_bill(lines if is_basic else []))

    def _offer(self, question: Question, write: Callable[[list[StatementLine]], bytes]) -> Reply:
        day = self._day(question)
        lines = self._statements.of(Wire.WECHATPAY, question.merchant.mchid, day)
        if not lines:
            raise WechatpayError(400, "NO_STATEMENT_EXIST")
        content = write(lines)
        packed = question.query.get("tar_type") == "GZIP"
        token = self._files.offer(gzip.compress(content) if packed else content)
        told = {
            "hash_type": "SHA1",
            # Over what was packed, not over the package.
            "hash_value": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
            "download_url": f"{self._desk.address.url}/v3/billdownload/file?token={token}",
        }
        return Reply("", told)

    def _day(self, question: Question) -> date:
        try:
            day = date.fromisoformat(question.query.get("bill_date", ""))
        except ValueError as error:
            raise WechatpayError(400, "PARAM_ERROR", "bill_date") from error
        today = instant(self._desk.book.now_ms()).astimezone(BEIJING).date()
        if day > today or (day == today and not self._desk.settings.bills_of_today):
            raise WechatpayError(400, "INVALID_REQUEST", "bill_date: that day is not over")
        return day

    def _file(self, question: Question) -> Reply:
        content = self._files.fetch(question.query.get("token", ""))
        if content is None:
            raise WechatpayError(404, "RESOURCE_NOT_EXISTS")
        return Reply("", raw=content)
