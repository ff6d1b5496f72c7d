"""
Alipay besides trades: transfers, bills, certificates.

Source:
    docs/PAYMENTS.md §2.2, §2.5 and §2.6.
"""

import base64
from collections.abc import Mapping
from datetime import date
from typing import Final

from app.kernel.clock import instant
from app.sandbox.alipay.bills import trade_bill
from app.sandbox.alipay.bodies import BillWish, CertificateName, TransferName, TransferWish
from app.sandbox.alipay.question import NO_PERMISSION, AlipayError, Answer, Question, Reply
from app.sandbox.alipay.words import TRANSFER_STATUSES, beijing_time, read_yuan, yuan
from app.sandbox.book import Refused, digest
from app.sandbox.desk import Desk
from app.sandbox.downloads import Downloads
from app.sandbox.numbers import BEIJING, transfer_number_of
from app.sandbox.records import Call, Transfer, TransferStatus, Wire
from app.sandbox.statements import Statements

BILL_PATH: Final = "/alipay/bills"
_AMOUNT_MIN: Final = 10  # fen


class Funds:
    """Answers of alipay.fund.*, alipay.data.* and alipay.open.*."""

    def __init__(self, desk: Desk, statements: Statements, files: Downloads) -> None:
        self._desk = desk
        self._book = desk.transfers
        self._statements = statements
        self._files = files

    def answers(self) -> Mapping[str, tuple[Answer, Call | None]]:
        """Return every method, and what scripts call it."""
        return {
            "alipay.fund.trans.uni.transfer": (self._send, Call.TRANSFER),
            "alipay.fund.trans.common.query": (self._query, Call.QUERY_TRANSFER),
            "alipay.data.dataservice.bill.downloadurl.query": (self._bill, None),
            "alipay.open.app.alipaycert.download": (self._certificate, None),
        }

    def _send(self, question: Question) -> Reply:
        wish = question.body(TransferWish)
        if question.merchant.certificates is None:
            raise AlipayError(sub_code="isv.insufficient-isv-permissions", code=NO_PERMISSION)
        amount_minor = read_yuan(wish.trans_amount)
        if amount_minor is None or amount_minor < _AMOUNT_MIN:
            raise AlipayError(sub_code="EXCEED_LIMIT_SM_AMOUNT")
        sent = self._book.send(self._transfer(question, wish, amount_minor), 0)
        if isinstance(sent, Refused):
            raise AlipayError(sub_code="INVALID_PARAMETER")
        told = {
            "out_biz_no": sent.number,
            "order_id": sent.provider_number,
            "pay_fund_order_id": sent.provider_number,
            "status": self._status(sent),
            "trans_date": beijing_time(sent.created_at_ms),
        }
        return Reply(sent.number, told)

    def _transfer(self, question: Question, wish: TransferWish, amount_minor: int) -> Transfer:
        return Transfer(
            wire=Wire.ALIPAY,
            number=wish.out_biz_no,
            merchant_id=question.merchant.seller_id,
            app_id=question.merchant.app_id,
            payee=wish.payee_info.identity,
            amount_minor=amount_minor,
            remark=wish.remark,
            content=digest((amount_minor, wish.payee_info)),
            callback_url="",
            provider_number=transfer_number_of(Wire.ALIPAY, wish.out_biz_no),
            created_at_ms=self._desk.book.now_ms(),
            ready_at_ms=None,
            ends_as=TransferStatus.SUCCEEDED,
        )

    def _query(self, question: Question) -> Reply:
        wish = question.body(TransferName)
        provider_number = wish.order_id or wish.pay_fund_order_id
        if wish.out_biz_no is not None:
            found = self._book.find(wish.out_biz_no)
        else:
            found = self._book.find_by_provider_number(provider_number or "")
        own = (Wire.ALIPAY, question.merchant.app_id)
        if isinstance(found, Refused) or (found.wire, found.app_id) != own:
            raise AlipayError(sub_code="ORDER_NOT_EXIST")
        told = {
            "out_biz_no": found.number,
            "order_id": found.provider_number,
            "pay_fund_order_id": found.provider_number,
            "status": self._status(found),
            "trans_amount": yuan(found.amount_minor),
            "pay_date": beijing_time(found.ready_at_ms or found.created_at_ms),
        }
        if told["status"] == "FAIL":
            told |= {"error_code": "PAYEE_NOT_EXIST", "fail_reason": "收款账号不存在"}
        return Reply(found.number, told)

    def _status(self, transfer: Transfer) -> str:
        return TRANSFER_STATUSES[transfer.status(self._desk.book.now_ms())]

    def _bill(self, question: Question) -> Reply:
        wish = question.body(BillWish)
        day = self._day(wish.bill_date)
        seller_id = question.merchant.seller_id
        lines = self._statements.of(Wire.ALIPAY, seller_id, day)
        if not lines:
            raise AlipayError(sub_code="BILL_NOT_EXIST")
        token = self._files.offer(trade_bill(seller_id, day, lines))
        return Reply(
            "", {"bill_download_url": f"{self._desk.address.url}{BILL_PATH}?token={token}"}
        )

    def _day(self, text: str) -> date:
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise AlipayError(sub_code="isv.invalid-parameter") from error
        today = instant(self._desk.book.now_ms()).astimezone(BEIJING).date()
        if day > today or (day == today and not self._desk.settings.bills_of_today):
            raise AlipayError(sub_code="isv.invalid-parameter")
        return day

    def _certificate(self, question: Question) -> Reply:
        name = question.body(CertificateName)
        certificates = question.merchant.certificates
        if certificates is None or certificates.alipay_serial != name.alipay_cert_sn:
            raise AlipayError(sub_code="isv.invalid-parameter")
        content = base64.b64encode(certificates.alipay_pem.encode()).decode()
        return Reply("", {"alipay_cert_content": content})
