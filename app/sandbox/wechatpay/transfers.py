"""
Money that merchants send to people over WeChat Pay: one by one, or in batches.

Source:
    docs/PAYMENTS.md §1.11.
"""

from typing import Final

from aiohttp import web

from app.sandbox.book import Refused, digest
from app.sandbox.desk import Desk
from app.sandbox.numbers import transfer_number_of
from app.sandbox.records import Call, Transfer, TransferBatch, TransferStatus, Wire
from app.sandbox.wechatpay.bodies import BatchBody, BatchDetail, TransferBody
from app.sandbox.wechatpay.door import Door, Question, Reply, WechatpayError, refuse
from app.sandbox.wechatpay.merchants import Merchant
from app.sandbox.wechatpay.signing import open_field
from app.sandbox.wechatpay.words import (
    Document,
    batch_answer,
    batch_begun,
    beijing_time,
    detail_answer,
    transfer_answer,
    transfer_begun,
)

_NAME_FROM: Final = 200_000  # fen: from here on the payee's name is needed
_NAME_TO: Final = 30  # fen: below it is forbidden
_AMOUNT_MIN: Final = 10  # fen
_PAGE_MAX: Final = 100
_OPEN: Final = frozenset({TransferStatus.PROCESSING, TransferStatus.WAITING})


class TransferRoutes:
    """Handlers of /v3/fund-app and /v3/transfer."""

    def __init__(self, desk: Desk, door: Door) -> None:
        self._desk = desk
        self._book = desk.transfers
        self._door = door

    def add_to(self, app: web.Application) -> None:
        """Mount every route."""
        signed, router = self._door.signed, app.router
        bills, batches = "/v3/fund-app/mch-transfer/transfer-bills", "/v3/transfer/batches"
        batch = batches + "/out-batch-no/{number}"
        router.add_post(bills, signed(self._send, Call.TRANSFER))
        router.add_get(bills + "/out-bill-no/{number}", signed(self._query, Call.QUERY_TRANSFER))
        router.add_get(bills + "/transfer-bill-no/{id}", signed(self._query_by_id))
        router.add_post(bills + "/out-bill-no/{number}/cancel", signed(self._cancel))
        router.add_post(batches, signed(self._send_batch, Call.TRANSFER))
        router.add_get(batch, signed(self._query_batch, Call.QUERY_TRANSFER))
        router.add_get(
            batch + "/details/out-detail-no/{detail}",
            signed(self._query_detail, Call.QUERY_TRANSFER),
        )

    def _send(self, question: Question) -> Reply:
        wish = question.body(TransferBody)
        merchant = question.merchant
        _check_app(merchant, wish.appid)
        _check_payee(merchant, wish.transfer_amount, wish.user_name)
        is_new = isinstance(self._book.find(wish.out_bill_no), Refused)
        sent = self._book.send(
            Transfer(
                wire=Wire.WECHATPAY,
                number=wish.out_bill_no,
                merchant_id=merchant.mchid,
                app_id=wish.appid,
                payee=wish.openid,
                amount_minor=wish.transfer_amount,
                remark=wish.transfer_remark,
                content=digest((wish.appid, wish.openid, wish.transfer_amount)),
                callback_url=wish.notify_url or "",
                provider_number=transfer_number_of(Wire.WECHATPAY, wish.out_bill_no),
                created_at_ms=self._desk.book.now_ms(),
                ready_at_ms=None,
                ends_as=TransferStatus.SUCCEEDED,
            ),
            self._desk.settings.transfer_after_ms,
        )
        if isinstance(sent, Refused):
            raise refuse(sent)
        if is_new:
            self._desk.tell_of_transfer(sent)
        return Reply(sent.number, transfer_begun(sent, self._desk.book.now_ms()))

    def _query(self, question: Question) -> Reply:
        transfer = self._own(question, question.path["number"])
        return Reply(transfer.number, transfer_answer(transfer, self._desk.book.now_ms()))

    def _query_by_id(self, question: Question) -> Reply:
        found = self._book.find_by_provider_number(question.path["id"])
        number = "" if isinstance(found, Refused) else found.number
        transfer = self._own(question, number)
        return Reply(transfer.number, transfer_answer(transfer, self._desk.book.now_ms()))

    def _cancel(self, question: Question) -> Reply:
        transfer = self._own(question, question.path["number"])
        now_ms = self._desk.book.now_ms()
        if transfer.status(now_ms) not in (*_OPEN, TransferStatus.CANCELLED):
            raise WechatpayError(400, "INVALID_REQUEST", "it has ended already")
        if transfer.status(now_ms) in _OPEN:
            transfer = self._book.end(transfer, TransferStatus.CANCELLED)
            self._desk.tell_of_transfer(transfer)
        told = {
            "out_bill_no": transfer.number,
            "transfer_bill_no": transfer.provider_number,
            "state": "CANCELING",
            "update_time": beijing_time(now_ms),
        }
        return Reply(transfer.number, told)

    def _send_batch(self, question: Question) -> Reply:
        wish = question.body(BatchBody)
        merchant = question.merchant
        _check_app(merchant, wish.appid)
        details = wish.transfer_detail_list
        numbers = [one.out_detail_no for one in details]
        total = sum(one.transfer_amount for one in details)
        if (total, len(details)) != (wish.total_amount, wish.total_num):
            raise WechatpayError(400, "PARAM_ERROR", "total_amount, total_num: not the details'")
        if len(set(numbers)) != len(numbers):
            raise WechatpayError(400, "PARAM_ERROR", "out_detail_no: twice")
        for one in details:
            _check_payee(merchant, one.transfer_amount, one.user_name)
        batch = self._batch_of(merchant, wish)
        transfers = [self._detail_of(merchant, wish, one) for one in details]
        sent = self._book.send_batch(batch, transfers)
        if isinstance(sent, Refused):
            raise refuse(sent)
        return Reply(sent.number, batch_begun(sent))

    def _batch_of(self, merchant: Merchant, wish: BatchBody) -> TransferBatch:
        asked = [(one.out_detail_no, one.transfer_amount, one.openid) for one in
                 wish.transfer_detail_list]  # fmt: skip
        return TransferBatch(
            number=wish.out_batch_no,
            merchant_id=merchant.mchid,
            app_id=wish.appid,
            name=wish.batch_name,
            remark=wish.batch_remark,
            amount_minor=wish.total_amount,
            transfers=tuple(one.out_detail_no for one in wish.transfer_detail_list),
            content=digest((wish.appid, wish.total_amount, asked)),
            provider_number=transfer_number_of(Wire.WECHATPAY, f"batch/{wish.out_batch_no}"),
            created_at_ms=self._desk.book.now_ms(),
        )

    def _detail_of(self, merchant: Merchant, wish: BatchBody, one: BatchDetail) -> Transfer:
        return Transfer(
            wire=Wire.WECHATPAY,
            number=one.out_detail_no,
            merchant_id=merchant.mchid,
            app_id=wish.appid,
            payee=one.openid,
            amount_minor=one.transfer_amount,
            remark=one.transfer_remark,
            content=digest((wish.appid, one.openid, one.transfer_amount)),
            callback_url="",
            provider_number=transfer_number_of(
                Wire.WECHATPAY, f"{wish.out_batch_no}/{one.out_detail_no}"
            ),
            created_at_ms=self._desk.book.now_ms(),
            ready_at_ms=None,
            ends_as=TransferStatus.SUCCEEDED,
            batch=wish.out_batch_no,
        )

    def _query_batch(self, question: Question) -> Reply:
        batch = self._own_batch(question)
        now_ms = self._desk.book.now_ms()
        transfers = self._book.of_batch(batch)
        told: Document = {"transfer_batch": batch_answer(batch, transfers, now_ms)}
        if question.query.get("need_query_detail") == "true":
            offset, limit = _window(question)
            details = [detail_answer(batch, one, now_ms) for one in transfers]
            wanted = question.query.get("detail_status", "ALL")
            shown = [one for one in details if wanted in ("ALL", one["detail_status"])]
            told |= {"offset": offset, "limit": limit}
            told["transfer_detail_list"] = [
                {name: one[name] for name in ("detail_id", "out_detail_no", "detail_status")}
                for one in shown[offset : offset + limit]
            ]
        return Reply(batch.number, told)

    def _query_detail(self, question: Question) -> Reply:
        batch = self._own_batch(question)
        transfer = self._book.find(question.path["detail"], batch.number)
        if isinstance(transfer, Refused):
            raise refuse(transfer)
        return Reply(batch.number, detail_answer(batch, transfer, self._desk.book.now_ms()))

    def _own(self, question: Question, number: str) -> Transfer:
        found = self._book.find(number)
        if (
            isinstance(found, Refused)
            or found.wire is not Wire.WECHATPAY
            or found.merchant_id != question.merchant.mchid
        ):
            raise WechatpayError(404, "NOT_FOUND", "no such transfer")
        return found

    def _own_batch(self, question: Question) -> TransferBatch:
        found = self._book.find_batch(question.path["number"])
        if isinstance(found, Refused) or found.merchant_id != question.merchant.mchid:
            raise WechatpayError(404, "NOT_FOUND", "no such batch")
        return found


def _check_app(merchant: Merchant, appid: str) -> None:
    if appid not in merchant.appids:
        raise WechatpayError(400, "APPID_MCHID_NOT_MATCH")


def _check_payee(merchant: Merchant, amount_minor: int, user_name: str | None) -> None:
    if amount_minor < _AMOUNT_MIN:
        raise WechatpayError(400, "PARAM_ERROR", "less than 0.10 yuan")
    if user_name is None and amount_minor >= _NAME_FROM:
        raise WechatpayError(400, "PARAM_ERROR", "user_name: needed from 2000 yuan")
    if user_name is not None and amount_minor < _NAME_TO:
        raise WechatpayError(400, "PARAM_ERROR", "user_name: forbidden below 0.30 yuan")
    if user_name is not None and not open_field(merchant, user_name):
        raise WechatpayError(400, "PARAM_ERROR", "user_name: not encrypted for the platform")


def _window(question: Question) -> tuple[int, int]:
    try:
        offset = int(question.query.get("offset", "0"))
        limit = int(question.query.get("limit", "20"))
    except ValueError as error:
        raise WechatpayError(400, "PARAM_ERROR", "offset, limit") from error
    if offset < 0 or not 0 < limit <= _PAGE_MAX:
        raise WechatpayError(400, "PARAM_ERROR", "offset, limit")
    return offset, limit
