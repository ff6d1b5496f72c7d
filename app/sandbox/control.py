"""
The testers' doors: what the shopper does, what the gateway does, what the merchant hears.

Nobody signs here; whoever reaches the gateway may play. A script may be given for
a number that does not exist yet: attempt numbers are known before the first call.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from aiohttp import web

from app.payments.provider import PayState, RefundStatus
from app.payments.providers.sandbox_wire import (
    AmountMinor,
    ErrorMessage,
    Message,
    Name,
    UnreadableMessage,
    read_message,
)
from app.sandbox.book import Refused
from app.sandbox.desk import Desk
from app.sandbox.json_replies import json_reply
from app.sandbox.plain.messages import tell_payment, tell_refund
from app.sandbox.records import (
    BillPlay,
    Call,
    Callback,
    Payment,
    RefundPlay,
    Script,
    TransferPlay,
    TransferStatus,
)
from app.sandbox.voice import Seal

LOST_ANSWERS_MAX: Final = 1_000


class ControlOutcome(StrEnum):
    """What the shopper does."""

    PAY = "pay"
    DECLINE = "decline"
    SCAN = "scan"  # looks at it: from then on Alipay knows the trade
    TIMEOUT = "timeout"  # walks away; the payment stays open until it expires


class ControlCallback(StrEnum):
    """How the merchant hears of it."""

    NOW = "now"
    LATE = "late"
    TWICE = "twice"
    NEVER = "never"
    FORGED = "forged"  # nothing happens here, and a stranger says that it did
    PROBE = "probe"  # a signature that is wrong on purpose comes first, then the true one
    OUT_OF_ORDER = "out_of_order"  # after the news what was so before it, or the same again


class ScriptPart(msgspec.Struct, forbid_unknown_fields=True):
    """What the gateway plays for this number from now on; it replaces what was said before."""

    lost_answers: dict[Call, Annotated[int, msgspec.Meta(ge=0, le=LOST_ANSWERS_MAX)]] = {}
    refund: RefundPlay = RefundPlay.SUCCEED
    bill: BillPlay = BillPlay.AGREE
    transfer: TransferPlay = TransferPlay.SUCCEED

    def script(self, number: str) -> Script:
        return Script(
            number=number,
            lost_answers=self.lost_answers,
            refund=self.refund,
            bill=self.bill,
            transfer=self.transfer,
        )


class Control(msgspec.Struct, forbid_unknown_fields=True):
    """
    The body of `POST /control/payments/{payment_id}`.

    Another amount, merchant or app than the payment's makes a message that lies: it
    is signed, and the gateway's own books say that nobody paid.
    """

    outcome: ControlOutcome | None = None
    callback: ControlCallback = ControlCallback.NOW
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] | None = None
    amount_minor: AmountMinor | None = None
    merchant_id: Name | None = None
    app_id: Name | None = None
    script: ScriptPart | None = None

    def is_lie(self, payment: Payment) -> bool:
        """Whether the merchant is told something that did not happen."""
        return self.callback is ControlCallback.FORGED or not (
            self.amount_minor in (None, payment.amount_minor)
            and self.merchant_id in (None, payment.merchant_id)
            and self.app_id in (None, payment.app_id)
        )


class EndRefund(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /control/refunds/{number}`."""

    outcome: RefundPlay


class EndTransfer(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /control/transfers/{number}`."""

    outcome: TransferPlay


_REFUND_ENDS: Final = {
    RefundPlay.SUCCEED: RefundStatus.SUCCEEDED,
    RefundPlay.ABNORMAL: RefundStatus.ABNORMAL,
    RefundPlay.CLOSED: RefundStatus.CLOSED,
}
_TRANSFER_ENDS: Final = {
    TransferPlay.SUCCEED: TransferStatus.SUCCEEDED,
    TransferPlay.FAIL: TransferStatus.FAILED,
}


class Stage:
    """Plays what is asked for; the doors and the page's buttons share it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def play(self, payment: Payment, wish: Control) -> None:
        """Do what the shopper does, and let the merchant hear of it."""
        if wish.outcome in (None, ControlOutcome.TIMEOUT):
            return
        if wish.outcome is ControlOutcome.SCAN:
            self._desk.book.meet(payment.number)
            return
        told = self._lie(payment, wish) if wish.is_lie(payment) else self._act(payment, wish)
        if isinstance(told, Payment) and wish.callback is not ControlCallback.NEVER:
            self._tell(payment, told, wish)

    def _tell(self, payment: Payment, told: Payment, wish: Control) -> None:
        voice = self._desk.voices.get(payment.wire)
        if voice is None or not payment.callback_url:
            return  # of an earlier run that spoke this protocol, or nobody asked to be told
        due_at_ms = self._desk.book.now_ms() + self._delay_ms(wish)
        callback = voice.payment_notice(told, payment, due_at_ms)
        if callback is None:
            return
        match wish.callback:
            case ControlCallback.FORGED:
                self._desk.deliveries.forge(callback)
            case ControlCallback.PROBE:
                self._desk.deliveries.forge(callback, Seal.PROBE)
                self._desk.deliveries.deliver(self._later(callback))
            case ControlCallback.OUT_OF_ORDER:
                before = msgspec.structs.replace(payment, state=PayState.NOT_PAID)
                old_news = voice.payment_notice(before, payment, due_at_ms)
                self._desk.deliveries.deliver(callback)
                self._desk.deliveries.deliver(self._later(old_news or callback))
            case ControlCallback.TWICE:
                self._desk.deliveries.deliver(callback, copies=2)
            case _:
                self._desk.deliveries.deliver(callback)

    def _later(self, callback: Callback) -> Callback:
        after_ms = self._desk.settings.second_callback_ms
        return msgspec.structs.replace(callback, due_at_ms=callback.due_at_ms + after_ms)

    def _lie(self, payment: Payment, wish: Control) -> Payment:
        if wish.outcome is ControlOutcome.DECLINE:
            return msgspec.structs.replace(payment, state=PayState.CLOSED)
        told = self._desk.book.as_paid(payment, wish.amount_minor or payment.amount_minor)
        return msgspec.structs.replace(
            told,
            merchant_id=wish.merchant_id or payment.merchant_id,
            app_id=wish.app_id or payment.app_id,
        )

    def _act(self, payment: Payment, wish: Control) -> Payment | Refused:
        if wish.outcome is ControlOutcome.PAY:
            return self._desk.book.pay(payment.number)
        return self._desk.book.close(payment.number)

    def _delay_ms(self, wish: Control) -> int:
        if wish.delay_ms is not None:
            return wish.delay_ms
        late = wish.callback is ControlCallback.LATE
        return self._desk.settings.late_callback_ms if late else 0


class ControlRoutes:
    """Handlers of the testers' doors."""

    def __init__(self, desk: Desk, stage: Stage) -> None:
        self._desk = desk
        self._stage = stage

    def add_to(self, app: web.Application) -> None:
        """Mount every route."""
        app.router.add_post("/control/payments/{number}", self._payment)
        app.router.add_post("/control/refunds/{number}", self._refund)
        app.router.add_post("/control/transfers/{number}", self._transfer)

    async def _payment(self, request: web.Request) -> web.Response:
        wish = await _read(request, Control)
        if isinstance(wish, web.Response):
            return wish
        if wish.outcome is None and wish.script is None:
            return _invalid("give an outcome, a script, or both")
        number = request.match_info["number"]
        payment = self._desk.book.payment(number)
        if isinstance(payment, Refused) and wish.outcome is not None:
            return json_reply(404, ErrorMessage(code="payment_not_found"))
        if wish.script is not None:
            self._desk.scripts.put(wish.script.script(number))
        if isinstance(payment, Refused):
            return json_reply(202, self._desk.scripts.of(number))
        self._stage.play(payment, wish)
        return json_reply(202, tell_payment(payment, self._desk.page_of(number)))

    async def _refund(self, request: web.Request) -> web.Response:
        wish = await _read(request, EndRefund)
        if isinstance(wish, web.Response):
            return wish
        ends_as = _REFUND_ENDS.get(wish.outcome)
        if ends_as is None:
            return _invalid("outcome: a refund ends as succeed, abnormal or closed")
        refund = self._desk.book.refund_by_number(request.match_info["number"])
        if isinstance(refund, Refused):
            return json_reply(404, ErrorMessage(code="refund_not_found"))
        ended = self._desk.book.end_refund(refund, ends_as)
        self._desk.tell_of_refund(ended)
        return json_reply(202, tell_refund(ended, self._desk.book.now_ms()))

    async def _transfer(self, request: web.Request) -> web.Response:
        wish = await _read(request, EndTransfer)
        if isinstance(wish, web.Response):
            return wish
        ends_as = _TRANSFER_ENDS.get(wish.outcome)
        if ends_as is None:
            return _invalid("outcome: a transfer ends as succeed or fail")
        transfer = self._desk.transfers.find(request.match_info["number"])
        if isinstance(transfer, Refused):
            return json_reply(404, ErrorMessage(code="transfer_not_found"))
        ended = self._desk.transfers.end(transfer, ends_as)
        self._desk.tell_of_transfer(ended)
        return json_reply(202, ended)


async def _read(request: web.Request, kind: type[Message]) -> Message | web.Response:
    try:
        return read_message(await request.read(), kind)
    except UnreadableMessage as error:
        return _invalid(str(error))


def _invalid(why: str) -> web.Response:
    return json_reply(422, ErrorMessage(code="validation_failed", message=why[:200]))
