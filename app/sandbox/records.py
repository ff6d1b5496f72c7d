"""What the gateway remembers: the lines of its journal, the same for every protocol."""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from app.payments.provider import PayState, Product, RefundStatus


class Wire(StrEnum):
    """In which protocol somebody speaks to the gateway."""

    PLAIN = "sandbox"
    WECHATPAY = "wechatpay"
    ALIPAY = "alipay"


class Call(StrEnum):
    """What a merchant asks for, in any protocol."""

    CREATE = "create"
    QUERY = "query"
    CLOSE = "close"
    REFUND = "refund"
    QUERY_REFUND = "query_refund"
    TRANSFER = "transfer"
    QUERY_TRANSFER = "query_transfer"


class RefundPlay(StrEnum):
    """How a refund goes."""

    SUCCEED = "succeed"
    ABNORMAL = "abnormal"  # the money has left the merchant and has not arrived
    CLOSED = "closed"  # it was given up, the money is where it was
    HELD = "held"  # processing, until somebody says how it ends
    REFUSED = "refused"  # not even accepted: the merchant's balance is too small


class BillPlay(StrEnum):
    """What the day's statement says about a payment."""

    AGREE = "agree"
    MISSING = "missing"  # its rows are left out
    OTHER_AMOUNT = "other_amount"  # one minor unit more than was paid
    EXTRA = "extra"  # a row of a payment that nobody ever asked for stands beside it


class TransferPlay(StrEnum):
    """What becomes of money that is sent to somebody."""

    SUCCEED = "succeed"
    FAIL = "fail"
    HELD = "held"  # the payee has not confirmed, until somebody says so


class TransferStatus(StrEnum):
    """Where money that was sent to somebody stands."""

    PROCESSING = "processing"
    WAITING = "waiting"  # for the payee
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Payment(msgspec.Struct, tag="payment", kw_only=True, frozen=True):
    """One payment; a change is a new record with the same number."""

    wire: Wire
    number: str  # the merchant's
    merchant_id: str
    app_id: str
    product: Product
    amount_minor: int
    currency: str
    description: str
    content: str  # a digest of all that was asked: tells a repeat from a number used twice
    created_at_ms: int
    expires_at_ms: int
    callback_url: str
    return_url: str | None = None
    attach: str = ""  # told again in queries and callbacks
    payer: str = ""  # who is to pay, where the protocol names them beforehand
    is_met: bool = True  # False: the shopper has not seen it yet; Alipay knows no such trade
    state: PayState = PayState.NOT_PAID
    provider_number: str | None = None
    captured_minor: int = 0
    paid_at_ms: int | None = None
    refunded_minor: int = 0  # reckoned from the refunds, never taken from here

    @property
    def key(self) -> str:
        return self.number


class Refund(msgspec.Struct, tag="refund", kw_only=True, frozen=True):
    """One refund; it ends as `ends_as` at `ready_at_ms`, or when somebody says so."""

    wire: Wire
    number: str
    payment_number: str
    merchant_id: str
    amount_minor: int
    currency: str
    reason: str
    content: str
    callback_url: str
    provider_number: str
    created_at_ms: int
    ready_at_ms: int | None
    ends_as: RefundStatus

    @property
    def key(self) -> str:
        return refund_key(self.payment_number, self.number)

    def status(self, now_ms: int) -> RefundStatus:
        """Tell where it stands at a moment."""
        ready = self.ready_at_ms is not None and now_ms >= self.ready_at_ms
        return self.ends_as if ready else RefundStatus.PROCESSING


def refund_key(payment_number: str, number: str) -> str:
    """Name a refund: at Alipay its number is unique within one payment only."""
    return f"{payment_number}/{number}"


class Transfer(msgspec.Struct, tag="transfer", kw_only=True, frozen=True):
    """Money sent to somebody; `batch` is the number of the batch it came in, if any."""

    wire: Wire
    number: str
    merchant_id: str
    app_id: str
    payee: str
    amount_minor: int
    remark: str
    content: str
    callback_url: str
    provider_number: str
    created_at_ms: int
    ready_at_ms: int | None
    ends_as: TransferStatus
    batch: str = ""

    @property
    def key(self) -> str:
        return f"{self.batch}/{self.number}"

    def status(self, now_ms: int) -> TransferStatus:
        """Tell where it stands at a moment."""
        if self.ready_at_ms is None:
            return TransferStatus.WAITING
        return self.ends_as if now_ms >= self.ready_at_ms else TransferStatus.PROCESSING


class TransferBatch(msgspec.Struct, tag="batch", kw_only=True, frozen=True):
    """Many transfers under one number; WeChat Pay's older way."""

    number: str
    merchant_id: str
    app_id: str
    name: str
    remark: str
    amount_minor: int
    transfers: tuple[str, ...]  # their numbers, in the order they came
    content: str
    provider_number: str
    created_at_ms: int

    @property
    def key(self) -> str:
        return self.number


class Script(msgspec.Struct, tag="script", kw_only=True, frozen=True):
    """What the gateway plays for one number, known already or not yet."""

    number: str
    lost_answers: dict[Call, int] = {}  # so many times the work is done and nobody is told
    refund: RefundPlay = RefundPlay.SUCCEED
    bill: BillPlay = BillPlay.AGREE
    transfer: TransferPlay = TransferPlay.SUCCEED

    @property
    def key(self) -> str:
        return self.number


class Callback(msgspec.Struct, tag="callback", kw_only=True, frozen=True):
    """One notification to be delivered until it is acknowledged, or tried often enough."""

    wire: Wire
    merchant_id: str
    app_id: str
    id: str
    url: str
    body: str  # what is signed anew for each try
    due_at_ms: int
    tries: int = 0
    done: bool = False

    @property
    def key(self) -> str:
        return self.id


Record: TypeAlias = Payment | Refund | Transfer | TransferBatch | Script | Callback
