"""
Payments and refunds over WeChat Pay.

Source:
    docs/PAYMENTS.md §1.6, §1.7 and §1.8.
"""

from datetime import timedelta
from typing import Final

from aiohttp import web

from app.kernel.clock import unix_ms
from app.payments.provider import PayState, Product, RefundStatus
from app.sandbox.book import Refused, digest
from app.sandbox.desk import Desk
from app.sandbox.numbers import refund_number_of
from app.sandbox.records import Call, Payment, Refund, Wire
from app.sandbox.wechatpay.bodies import AbnormalRefundBody, CloseBody, CreateBody, RefundBody
from app.sandbox.wechatpay.door import Door, Question, Reply, WechatpayError, refuse
from app.sandbox.wechatpay.words import refund_answer, transaction

PRODUCTS: Final = {
    "native": Product.NATIVE,
    "jsapi": Product.JSAPI,
    "h5": Product.H5,
    "app": Product.APP,
}
PREPAY_PREFIX: Final = "wx"
_LIFETIME: Final = timedelta(days=7)  # of a payment that names no time of its own
_MARGIN_MS: Final = 60_000  # a payment must live for a minute at least
_NO_ORDER: Final = {"not_found": (404, "ORDER_NOT_EXIST")}


class PaymentRoutes:
    """Handlers of /v3/pay and /v3/refund."""

    def __init__(self, desk: Desk, door: Door) -> None:
        self._desk = desk
        self._book = desk.book
        self._door = door

    def add_to(self, app: web.Application) -> None:
        """Mount every route."""
        signed, router = self._door.signed, app.router
        orders, refunds = "/v3/pay/transactions", "/v3/refund/domestic/refunds"
        router.add_post(
            orders + "/{product:native|jsapi|h5|app}", signed(self._create, Call.CREATE)
        )
        router.add_get(orders + "/out-trade-no/{number}", signed(self._query, Call.QUERY))
        router.add_get(orders + "/id/{id}", signed(self._query_by_id, Call.QUERY))
        router.add_post(orders + "/out-trade-no/{number}/close", signed(self._close, Call.CLOSE))
        router.add_post(refunds, signed(self._refund, Call.REFUND))
        router.add_get(refunds + "/{number}", signed(self._query_refund, Call.QUERY_REFUND))
        router.add_post(refunds + "/{refund_id}/apply-abnormal-refund", signed(self._end_abnormal))

    def _create(self, question: Question) -> Reply:
        wish = question.body(CreateBody)
        merchant = question.merchant
        if wish.mchid != merchant.mchid or wish.appid not in merchant.appids:
            raise WechatpayError(400, "APPID_MCHID_NOT_MATCH")
        product = PRODUCTS[question.path["product"]]
        if product is Product.JSAPI and wish.payer is None:
            raise WechatpayError(400, "PARAM_ERROR", "payer.openid")
        if product is Product.H5 and (wish.scene_info is None or wish.scene_info.h5_info is None):
            raise WechatpayError(400, "PARAM_ERROR", "scene_info.h5_info")
        created = self._book.create(self._payment(wish, product))
        if isinstance(created, Refused):
            raise refuse(created, number_used=(403, "OUT_TRADE_NO_USED"))
        if created.state is PayState.CLOSED:
            raise WechatpayError(400, "ORDER_CLOSED")
        if created.state is not PayState.NOT_PAID:
            raise WechatpayError(400, "INVALID_REQUEST", "该订单已支付")
        return Reply(wish.out_trade_no, self._action(created))

    def _payment(self, wish: CreateBody, product: Product) -> Payment:
        now_ms = self._book.now_ms()
        expires_at_ms = now_ms + _LIFETIME // timedelta(milliseconds=1)
        is_new = isinstance(self._book.payment(wish.out_trade_no), Refused)
        if wish.time_expire is not None:
            expires_at_ms = unix_ms(wish.time_expire)
            if is_new and expires_at_ms - now_ms < _MARGIN_MS // self._desk.settings.clock_factor:
                raise WechatpayError(400, "PARAM_ERROR", "time_expire: less than a minute ahead")
        return Payment(
            wire=Wire.WECHATPAY,
            number=wish.out_trade_no,
            merchant_id=wish.mchid,
            app_id=wish.appid,
            product=product,
            amount_minor=wish.amount.total,
            currency=wish.amount.currency,
            description=wish.description,
            content=digest((product, wish)),
            created_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
            callback_url=wish.notify_url,
            attach=wish.attach,
            payer="" if wish.payer is None else wish.payer.openid,
        )

    def _action(self, payment: Payment) -> dict[str, str]:
        """Say how the shopper goes on; a code holds the page where a telephone would pay."""
        page = self._desk.page_of(payment.number)
        match payment.product:
            case Product.NATIVE:
                return {"code_url": page}
            case Product.H5:
                return {"h5_url": f"{page}?prepay_id={PREPAY_PREFIX}{payment.number}"}
            case _:
                return {"prepay_id": f"{PREPAY_PREFIX}{payment.number}"}

    def _query(self, question: Question) -> Reply:
        self._check_mchid(question)
        payment = self._own(question, question.path["number"])
        return Reply(payment.number, transaction(payment))

    def _query_by_id(self, question: Question) -> Reply:
        self._check_mchid(question)
        payment = self._find(question, question.path["id"])
        return Reply(payment.number, transaction(payment))

    def _close(self, question: Question) -> Reply:
        if question.body(CloseBody).mchid != question.merchant.mchid:
            raise WechatpayError(400, "PARAM_ERROR", "mchid")
        payment = self._own(question, question.path["number"])
        closed = self._book.close(payment.number)
        if isinstance(closed, Refused):
            raise refuse(closed)
        return Reply(payment.number, status=204)

    def _refund(self, question: Question) -> Reply:
        wish = question.body(RefundBody)
        if (wish.out_trade_no is None) is (wish.transaction_id is None):
            raise WechatpayError(400, "PARAM_ERROR", "transaction_id or out_trade_no")
        if wish.out_trade_no is not None:
            payment = self._own(question, wish.out_trade_no)
        else:
            payment = self._find(question, wish.transaction_id or "")
        if payment.captured_minor and wish.amount.total != payment.captured_minor:
            raise WechatpayError(400, "PARAM_ERROR", "amount.total is not the payment's")
        known = self._book.refund_by_number(wish.out_refund_no)
        if isinstance(known, Refund) and known.payment_number != payment.number:
            raise refuse(Refused.NUMBER_USED)
        asked = _asked_refund(wish, payment, self._book.now_ms())
        refund = self._desk.refund(asked, self._desk.settings.refund_after_ms)
        if isinstance(refund, Refused):
            raise refuse(refund)
        return Reply(payment.number, refund_answer(refund, payment, self._book.now_ms()))

    def _query_refund(self, question: Question) -> Reply:
        refund = self._own_refund(question, question.path["number"])
        payment = self._own(question, refund.payment_number)
        return Reply(payment.number, refund_answer(refund, payment, self._book.now_ms()))

    def _end_abnormal(self, question: Question) -> Reply:
        """Send money that could not arrive to another account, where it does arrive."""
        refund = self._own_refund(question, question.body(AbnormalRefundBody).out_refund_no)
        now_ms = self._book.now_ms()
        is_it = refund.provider_number == question.path["refund_id"]
        if not is_it or refund.status(now_ms) is not RefundStatus.ABNORMAL:
            raise WechatpayError(400, "INVALID_REQUEST", "this refund is not abnormal")
        ended = self._book.end_refund(refund, RefundStatus.SUCCEEDED)
        self._desk.tell_of_refund(ended)
        payment = self._own(question, refund.payment_number)
        return Reply(payment.number, refund_answer(ended, payment, self._book.now_ms()))

    def _check_mchid(self, question: Question) -> None:
        if question.query.get("mchid") != question.merchant.mchid:
            raise WechatpayError(400, "PARAM_ERROR", "mchid")

    def _own(self, question: Question, number: str) -> Payment:
        """Return the merchant's payment; another's is as if it were not there."""
        found = self._book.payment(number)
        if isinstance(found, Refused) or not _is_of(question, found):
            raise refuse(Refused.NOT_FOUND, **_NO_ORDER)
        return found

    def _find(self, question: Question, transaction_id: str) -> Payment:
        for payment in self._book.payments():
            if payment.provider_number == transaction_id and _is_of(question, payment):
                return payment
        raise refuse(Refused.NOT_FOUND, **_NO_ORDER)

    def _own_refund(self, question: Question, number: str) -> Refund:
        found = self._book.refund_by_number(number)
        mchid = question.merchant.mchid
        is_own = isinstance(found, Refund) and (found.wire, found.merchant_id) == (
            Wire.WECHATPAY,
            mchid,
        )
        if isinstance(found, Refused) or not is_own:
            raise refuse(Refused.NOT_FOUND)
        return found


def _is_of(question: Question, payment: Payment) -> bool:
    mchid = question.merchant.mchid
    return (payment.wire, payment.merchant_id) == (Wire.WECHATPAY, mchid)


def _asked_refund(wish: RefundBody, payment: Payment, now_ms: int) -> Refund:
    return Refund(
        wire=Wire.WECHATPAY,
        number=wish.out_refund_no,
        payment_number=payment.number,
        merchant_id=payment.merchant_id,
        amount_minor=wish.amount.refund,
        currency=wish.amount.currency,
        reason=wish.reason,
        content=digest((payment.number, wish.amount)),
        callback_url=wish.notify_url or "",
        provider_number=refund_number_of(Wire.WECHATPAY, wish.out_refund_no),
        created_at_ms=now_ms,
        ready_at_ms=None,
        ends_as=RefundStatus.SUCCEEDED,
    )
