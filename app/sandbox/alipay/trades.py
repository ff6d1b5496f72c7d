"""
Trades and refunds over Alipay.

Source:
    docs/PAYMENTS.md §2.3.
"""

import re
from collections.abc import Mapping
from typing import Final

from app.payments.provider import CAPTURED_STATES, PayState, Product, RefundStatus
from app.sandbox.alipay.bodies import RefundName, RefundWish, Trade, TradeName
from app.sandbox.alipay.question import INVALID, AlipayError, Answer, Question, Reply, ToPage
from app.sandbox.alipay.words import (
    beijing_time,
    buyer_of,
    read_time,
    read_yuan,
    trade,
    trade_number,
    yuan,
)
from app.sandbox.book import Refused, digest
from app.sandbox.desk import Desk
from app.sandbox.numbers import refund_number_of
from app.sandbox.records import Call, Payment, Refund, RefundPlay, Wire

PRODUCT_CODES: Final = {
    Product.PAGE: "FAST_INSTANT_TRADE_PAY",
    Product.WAP: "QUICK_WAP_WAY",
    Product.APP: "QUICK_MSECURITY_PAY",
}
_AMOUNT_MAX: Final = 10_000_000_000  # fen
_CODE_MS: Final = 7_200_000  # how long a code can be scanned, when nobody says
_TRADE_MS: Final = 15 * 86_400_000  # how long a trade can be paid, when nobody says
_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])", re.ASCII)
_SPAN_MS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_REFUSALS: Final = {
    Refused.NOT_FOUND: "ACQ.TRADE_NOT_EXIST",
    Refused.NUMBER_USED: "ACQ.CONTEXT_INCONSISTENT",
    Refused.EXPIRED: "ACQ.INVALID_PARAMETER",
    Refused.ALREADY_PAID: "ACQ.REASON_TRADE_STATUS_INVALID",
    Refused.NOT_PAID: "ACQ.TRADE_STATUS_ERROR",
    Refused.EXCEEDS_PAYMENT: "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL",
    Refused.NOT_ENOUGH: "ACQ.SELLER_BALANCE_NOT_ENOUGH",
}


class Trades:
    """Answers of alipay.trade.*."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._book = desk.book

    def answers(self) -> Mapping[str, tuple[Answer, Call]]:
        """Return every method, and what scripts call it."""
        return {
            "alipay.trade.precreate": (self._precreate, Call.CREATE),
            "alipay.trade.page.pay": (self._page_pay, Call.CREATE),
            "alipay.trade.wap.pay": (self._wap_pay, Call.CREATE),
            "alipay.trade.app.pay": (self._app_pay, Call.CREATE),
            "alipay.trade.query": (self._query, Call.QUERY),
            "alipay.trade.close": (self._close, Call.CLOSE),
            "alipay.trade.cancel": (self._cancel, Call.CLOSE),
            "alipay.trade.refund": (self._refund, Call.REFUND),
            "alipay.trade.fastpay.refund.query": (self._query_refund, Call.QUERY_REFUND),
        }

    def _precreate(self, question: Question) -> Reply:
        payment = self._open(question, Product.QR)
        page = self._desk.page_of(payment.number)
        return Reply(payment.number, {"out_trade_no": payment.number, "qr_code": page})

    def _page_pay(self, question: Question) -> ToPage:
        return ToPage(self._open(question, Product.PAGE).number)

    def _wap_pay(self, question: Question) -> ToPage:
        return ToPage(self._open(question, Product.WAP).number)

    def _app_pay(self, question: Question) -> ToPage:
        return ToPage(self._open(question, Product.APP).number)

    def _open(self, question: Question, product: Product) -> Payment:
        if question.merchant.is_blocked:
            raise AlipayError(sub_code="ACQ.SELLER_BEEN_BLOCKED")
        wish = question.body(Trade)
        wanted = PRODUCT_CODES.get(product)
        if wanted is not None and wish.product_code != wanted:
            raise AlipayError(sub_code="ACQ.PRODUCT_NOT_SUPPORT")
        opened = self._book.create(self._payment(question, wish, product))
        if isinstance(opened, Refused):
            raise _refuse(opened)
        if opened.state in CAPTURED_STATES:
            raise AlipayError(sub_code="ACQ.TRADE_HAS_SUCCESS")
        if opened.state is PayState.CLOSED:
            raise AlipayError(sub_code="ACQ.TRADE_HAS_CLOSE")
        return opened

    def _payment(self, question: Question, wish: Trade, product: Product) -> Payment:
        amount_minor = read_yuan(wish.total_amount)
        if amount_minor is None or not 1 <= amount_minor <= _AMOUNT_MAX:
            raise AlipayError(sub_code="ACQ.TOTAL_FEE_EXCEED")
        merchant, parameters = question.merchant, question.parameters
        now_ms = self._book.now_ms()
        return Payment(
            wire=Wire.ALIPAY,
            number=wish.out_trade_no,
            merchant_id=merchant.seller_id,
            app_id=merchant.app_id,
            product=product,
            amount_minor=amount_minor,
            currency="CNY",
            description=wish.subject,
            content=digest((merchant.app_id, product, amount_minor, wish.subject)),
            created_at_ms=now_ms,
            expires_at_ms=_expiry(wish, product, now_ms),
            callback_url=parameters.get("notify_url", ""),
            return_url=parameters.get("return_url") or None,
            attach=wish.passback_params,
            is_met=product is not Product.QR,
        )

    def _query(self, question: Question) -> Reply:
        payment = self._named(question, question.body(TradeName))
        return Reply(payment.number, trade(payment))

    def _close(self, question: Question) -> Reply:
        payment = self._named(question, question.body(TradeName))
        if payment.state is PayState.CLOSED:
            raise AlipayError(sub_code="ACQ.TRADE_STATUS_ERROR")
        closed = self._book.close(payment.number)
        if isinstance(closed, Refused):
            raise _refuse(closed)
        return Reply(payment.number, _names(payment))

    def _cancel(self, question: Question) -> Reply:
        """Undo whatever was done: an unpaid trade is closed, a paid one refunded in full."""
        wish = question.body(TradeName)
        try:
            payment = self._named(question, wish)
        except AlipayError:
            # Nothing is there, so nothing is left to undo.
            return Reply(wish.out_trade_no or "", {**_told(wish), "retry_flag": "N"})
        if payment.state in CAPTURED_STATES:
            left_minor = payment.captured_minor - payment.refunded_minor
            if left_minor:
                self._send_back(payment, f"C{payment.number}", left_minor, "cancel")
            action = "refund"
        else:
            self._book.close(payment.number)
            action = "close"
        told = {**_names(payment), "retry_flag": "N", "action": action}
        return Reply(payment.number, told)

    def _refund(self, question: Question) -> Reply:
        wish = question.body(RefundWish)
        payment = self._named(question, wish)
        amount_minor = read_yuan(wish.refund_amount)
        if not amount_minor:
            raise AlipayError(sub_code="ACQ.INVALID_PARAMETER")
        if payment.state is PayState.CLOSED:
            raise AlipayError(sub_code="ACQ.TRADE_HAS_CLOSE")
        number = wish.out_request_no or payment.number
        known = self._book.find_refund(payment.number, number)
        refund = self._send_back(payment, number, amount_minor, wish.refund_reason)
        now = self._book.payment(payment.number)
        assert isinstance(now, Payment)
        arrived = refund.status(self._book.now_ms()) is RefundStatus.SUCCEEDED
        told = {
            **_names(payment),
            "buyer_logon_id": "san***@example.com",
            "buyer_user_id": buyer_of(payment),
            "refund_fee": yuan(self._arrived_minor(now)),
            "gmt_refund_pay": beijing_time(refund.ready_at_ms or refund.created_at_ms),
            # A repeat moves no money, though it is as good as the first.
            "fund_change": "Y" if arrived and isinstance(known, Refused) else "N",
        }
        return Reply(payment.number, told)

    def _send_back(self, payment: Payment, number: str, amount_minor: int, why: str) -> Refund:
        play = self._desk.scripts.of(payment.number).refund
        straight = play is RefundPlay.SUCCEED
        refund = self._desk.refund(
            Refund(
                wire=Wire.ALIPAY,
                number=number,
                payment_number=payment.number,
                merchant_id=payment.merchant_id,
                amount_minor=amount_minor,
                currency=payment.currency,
                reason=why,
                content=digest(amount_minor),
                callback_url=payment.callback_url,
                provider_number=refund_number_of(Wire.ALIPAY, f"{payment.number}/{number}"),
                created_at_ms=self._book.now_ms(),
                ready_at_ms=None,
                ends_as=RefundStatus.SUCCEEDED,
            ),
            0 if straight else self._desk.settings.refund_after_ms,
        )
        if refund is Refused.NUMBER_USED:
            raise AlipayError(sub_code="ACQ.DISCORDANT_REPEAT_REQUEST")
        if isinstance(refund, Refused):
            raise _refuse(refund)
        return refund

    def _query_refund(self, question: Question) -> Reply:
        wish = question.body(RefundName)
        payment = self._named(question, wish)
        refund = self._book.find_refund(payment.number, wish.out_request_no)
        told = _names(payment)
        if isinstance(refund, Refund):
            told |= {
                "out_request_no": refund.number,
                "total_amount": yuan(payment.captured_minor),
                "refund_amount": yuan(refund.amount_minor),
            }
            # Only an arrival is told; the absence of a status may mean anything else.
            if refund.status(self._book.now_ms()) is RefundStatus.SUCCEEDED:
                told["refund_status"] = "REFUND_SUCCESS"
                told["gmt_refund_pay"] = beijing_time(refund.ready_at_ms or refund.created_at_ms)
        return Reply(payment.number, told)

    def _arrived_minor(self, payment: Payment) -> int:
        """Add up what has gone back: what Alipay tells is the sum, not the last part."""
        now_ms = self._book.now_ms()
        return sum(
            refund.amount_minor
            for refund in self._book.refunds_of(payment.number)
            if refund.status(now_ms) is RefundStatus.SUCCEEDED
        )

    def _named(self, question: Question, name: TradeName | RefundWish | RefundName) -> Payment:
        """Find a trade of this app; a code that was never scanned is none."""
        found = self._book.payment(name.out_trade_no or "")
        if name.trade_no:
            found = next(
                (one for one in self._book.payments() if one.provider_number == name.trade_no),
                found,
            )
        elif not name.out_trade_no:
            raise AlipayError(sub_code="ACQ.INVALID_PARAMETER", code=INVALID)
        own = (Wire.ALIPAY, question.merchant.app_id)
        if isinstance(found, Refused) or (found.wire, found.app_id) != own or not found.is_met:
            raise _refuse(Refused.NOT_FOUND)
        return found


def _names(payment: Payment) -> dict[str, str]:
    return {"trade_no": trade_number(payment), "out_trade_no": payment.number}


def _told(wish: TradeName) -> dict[str, str]:
    return {} if wish.out_trade_no is None else {"out_trade_no": wish.out_trade_no}


def _refuse(refused: Refused) -> AlipayError:
    return AlipayError(sub_code=_REFUSALS.get(refused, "ACQ.SYSTEM_ERROR"))


def _expiry(wish: Trade, product: Product, now_ms: int) -> int:
    """Say until when it can be paid: the sooner of the trade's end and the code's."""
    ends = [now_ms + (_CODE_MS if product is Product.QR else _TRADE_MS)]
    if wish.time_expire is not None:
        at_ms = read_time(wish.time_expire)
        if at_ms is None:
            raise AlipayError(sub_code="ACQ.INVALID_PARAMETER")
        ends.append(at_ms)
    elif wish.timeout_express is not None:
        ends.append(now_ms + _span_ms(wish.timeout_express))
    if wish.qr_code_timeout_express is not None:
        ends.append(now_ms + _span_ms(wish.qr_code_timeout_express))
    return min(ends)


def _span_ms(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise AlipayError(sub_code="ACQ.INVALID_PARAMETER")
    return int(found[1]) * _SPAN_MS[found[2]]
