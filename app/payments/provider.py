"""
The one port to payment providers: what we ask of them, what they tell us.

`Provider` is what every provider can do. What only some can do is a protocol of
its own: `PaysOut` sends money to a person, `TellsBills` lists a day's money.

A provider is told numbers that we chose and answers with a `Result`: the
outcome of one call, never the state of the payment. What it knows about a
payment or a refund is a snapshot, and a snapshot reads the same whether it was
the answer to a query or came by callback. Nothing here does I/O; whether a
snapshot may move an order is judged in `payments.intent`, once for all
providers.

Untrusted
├── BadSignature         (kernel.errors)
├── StaleMessage         signed, but too long ago or too far ahead
└── MalformedMessage     signed, but not a message we can read

Source:
    docs/PAYMENTS.md §4 (the port, the outcomes, the state mapping).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from app.kernel.errors import Untrusted

Value = TypeVar("Value")


class StaleMessage(Untrusted):
    """The message was signed too long ago, or too far ahead."""


class MalformedMessage(Untrusted):
    """The message is signed, and not one that we can read."""

    code = "bad_request"


class Outcome(StrEnum):
    """What one call came to; says nothing of the payment itself."""

    CONFIRMED = "confirmed"  # signed: done, or this is so
    REJECTED = "rejected"  # signed: refused for good
    PENDING = "pending"  # signed: accepted, the final state comes later
    NOT_SENT = "not_sent"  # surely never reached the provider
    UNKNOWN = "unknown"  # anything else: ask, or repeat with the same number


class PayState(StrEnum):
    """A payment as its provider sees it."""

    NOT_PAID = "not_paid"
    PAYING = "paying"
    PAID = "paid"
    CLOSED = "closed"
    PARTIAL_REFUND = "partial_refund"
    REFUNDED = "refunded"
    NOT_FOUND = "not_found"
    UNKNOWN = "unknown"  # signed, and a word that we do not know: no effect, an alarm


# A refund turns WeChat's SUCCESS into REFUND: the money did come in.
CAPTURED_STATES: Final = frozenset(
    {PayState.PAID, PayState.PARTIAL_REFUND, PayState.REFUNDED},
)


class RefundStatus(StrEnum):
    """A refund as its provider sees it."""

    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    CLOSED = "closed"  # refused for good; the money stays where it is
    ABNORMAL = "abnormal"  # the payer's account cannot take it; somebody must act
    NOT_FOUND = "not_found"
    UNKNOWN = "unknown"  # signed, and a word that we do not know: no effect, an alarm


class TransferState(StrEnum):
    """Money sent to a person, as its provider sees it."""

    PROCESSING = "processing"
    WAIT_USER = "wait_user"  # the payee has to accept it
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NOT_FOUND = "not_found"
    UNKNOWN = "unknown"  # signed, and a word that we do not know: no effect, an alarm


class BillKind(StrEnum):
    """Which of a provider's daily lists."""

    TRADE = "trade"  # what shoppers paid and got back
    FUND = "fund"  # what moved on our account there


class BillLineKind(StrEnum):
    """What one line of a bill is about."""

    PAYMENT = "payment"
    REFUND = "refund"
    FEE = "fee"
    FEE_RETURN = "fee_return"
    TRANSFER = "transfer"  # to a person
    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"  # to our bank
    OTHER = "other"  # a word that we do not know; it still moved money


class Product(StrEnum):
    """In which way the shopper meets the provider."""

    NATIVE = "native"  # a code on our page, scanned with the wallet
    QR = "qr"  # the same, shown by a cashier
    JSAPI = "jsapi"  # inside the wallet's own browser
    APP = "app"  # from our app into the wallet's
    H5 = "h5"  # from a phone's browser into the wallet
    WAP = "wap"
    PAGE = "page"  # on the provider's own page
    DIRECT = "direct"  # with the house itself: by proof, by bank transfer, from a balance


class Refusal(StrEnum):
    """Why a callback is not acknowledged."""

    BAD_SIGNATURE = "bad_signature"
    STALE = "stale"
    MALFORMED = "malformed"
    UNKNOWN_NUMBER = "unknown_number"
    MISMATCH = "mismatch"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class MerchantAccount:
    """Who we are at a provider; one provider may know us under several accounts."""

    name: str  # ours, in routes and rows; empty for the only one
    merchant_id: str
    app_id: str


@dataclass(frozen=True, slots=True)
class QrAction:
    """Show `text` as a code; `page` is the same for a browser."""

    text: str
    page: str

    def document(self) -> dict[str, object]:
        return {"kind": "qr", "text": self.text, "page": self.page}


@dataclass(frozen=True, slots=True)
class RedirectAction:
    """Send the shopper's browser there."""

    url: str

    def document(self) -> dict[str, object]:
        return {"kind": "redirect", "url": self.url}


@dataclass(frozen=True, slots=True)
class FormAction:
    """Let the shopper's browser post this form."""

    url: str
    fields: Mapping[str, str]

    def document(self) -> dict[str, object]:
        return {"kind": "form", "url": self.url, "fields": dict(self.fields)}


@dataclass(frozen=True, slots=True)
class ParamsAction:
    """Hand these to the wallet's own library."""

    params: Mapping[str, str]

    def document(self) -> dict[str, object]:
        return {"kind": "params", "params": dict(self.params)}


@dataclass(frozen=True, slots=True)
class NoAction:
    """Nothing is left to do: the call itself took the money; asking tells so."""

    def document(self) -> dict[str, object]:
        return {"kind": "none"}


Action: TypeAlias = QrAction | RedirectAction | FormAction | ParamsAction | NoAction


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReference:
    """All that any provider needs to find a payment again."""

    number: str
    provider_number: str | None
    amount_minor: int
    currency: str
    created_at: datetime
    # Some providers let a failed try be followed by another until the attempt
    # expires (UnionPay); a refund asks nothing of that.
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRequest:
    """One payment to be opened; repeating it with the same number is the same request."""

    number: str
    product: Product
    amount_minor: int
    currency: str
    description: str
    created_at: datetime
    expires_at: datetime
    return_url: str | None = None
    # Who the payer is to the provider (WeChat Pay JSAPI) and where the shopper's
    # browser is (H5): personal, passed on and neither kept nor logged.
    payer_id: str | None = field(default=None, repr=False)
    client_address: str | None = field(default=None, repr=False)
    # Whose order it is, for who pays from what the house holds; told to nobody outside.
    shopper: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRequest:
    """Money back from one payment; repeating it with the same number is the same request."""

    number: str
    attempt: AttemptReference
    amount_minor: int
    currency: str
    reason: str
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRequest:
    """Money to a person; repeating it with the same number is the same request."""

    number: str
    payee_id: str = field(repr=False)  # the provider's name for the person or account
    amount_minor: int
    currency: str
    description: str
    requested_at: datetime
    payee_name: str | None = field(default=None, repr=False)  # compared by the provider


@dataclass(frozen=True, slots=True, kw_only=True)
class PaySnapshot:
    """What the provider says of one payment; amount and accounts as *it* knows them."""

    number: str
    state: PayState
    merchant_id: str = ""
    app_id: str = ""
    provider_number: str | None = None
    amount_minor: int = 0
    currency: str = ""
    paid_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundSnapshot:
    """What the provider says of one refund; `merchant_id` as it knows it."""

    number: str
    attempt_number: str
    status: RefundStatus
    merchant_id: str = ""
    provider_number: str | None = None
    amount_minor: int = 0
    currency: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSnapshot:
    """What the provider says of one transfer; amount and accounts as *it* knows them."""

    number: str
    state: TransferState
    merchant_id: str = ""
    app_id: str = ""
    provider_number: str | None = None
    amount_minor: int = 0
    currency: str = ""
    failure: str = ""  # the provider's own word for why it failed
    # What the payee's wallet needs to accept it, when `wait_user`.
    acceptance: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """
    One line of a provider's bill, in our terms.

    Amounts are minor units with the sign of our account there: a payment is
    positive, a refund and a fee are negative, a returned fee is positive.
    """

    kind: BillLineKind
    number: str  # ours: of the attempt, refund or transfer; empty when the bill names none
    provider_number: str
    amount_minor: int
    fee_minor: int
    currency: str
    happened_at: datetime
    raw: Mapping[str, str] = field(repr=False)  # by the bill's own column names
    related_provider_number: str | None = None  # of a refund: the payment it undoes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """
    One day's bill, checked against its own hash and summary.

    `raw` is what was downloaded, decompressed, as evidence; a day without money
    is a bill without lines.
    """

    kind: BillKind
    day: date  # in the provider's time zone
    lines: Sequence[BillLine]
    raw: bytes = field(repr=False)


Snapshot: TypeAlias = PaySnapshot | RefundSnapshot | TransferSnapshot


@dataclass(frozen=True, slots=True)
class Result(Generic[Value]):
    """What one call came to; `value` is set when the provider told a state."""

    outcome: Outcome
    value: Value | None = None
    code: str = ""  # the provider's own word, for logs
    raw: bytes = b""  # the verified bytes the value was read from
    # Of REJECTED: our account there is the trouble (no right, a limit, disabled), and
    # not what was asked: another account may be tried.
    concerns_account: bool = False
    # Of REJECTED: the payer has too little there; this number is dead for good.
    lacks_funds: bool = False
    # Of NOT_SENT: what was asked can never be sent by this provider's rules; it says
    # nothing of whether the provider is well.
    concerns_request: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One message about one payment, refund or transfer, the same for every provider."""

    provider: str
    notification_id: str
    event_at: datetime
    about: Snapshot


@dataclass(frozen=True, slots=True)
class Verified:
    """
    An event whose signature was checked, with what is kept of the signed message.

    `raw` holds nothing of a person in clear: it is the message where that is sealed
    (WeChat Pay) or absent, and else the message with what may be personal cut out.
    """

    event: Event
    headers: Mapping[str, str]
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An acknowledgement as the provider wants to read it."""

    status: int
    content_type: str
    body: bytes


class Provider(Protocol):
    """
    One payment provider under one merchant account.

    A call never raises for what a network or a provider does: that is an
    `Outcome`. Calls may be repeated with the same number at any time. What a
    provider's rules can never allow (a missing payer, a currency it does not
    take) is NOT_SENT with a code that says why: it surely never reached it.
    """

    @property
    def code(self) -> str:
        """The provider's name in our routes and rows."""
        ...

    @property
    def account(self) -> MerchantAccount: ...

    @property
    def products(self) -> frozenset[Product]: ...

    async def create(self, charge: ChargeRequest) -> Result[Action]: ...

    async def query(self, attempt: AttemptReference) -> Result[PaySnapshot]: ...

    async def close(self, attempt: AttemptReference) -> Result[None]: ...

    async def refund(self, refund: RefundRequest) -> Result[RefundSnapshot]: ...

    async def query_refund(self, refund: RefundRequest) -> Result[RefundSnapshot]: ...

    def parse_notification(self, headers: Mapping[str, str], raw: bytes) -> Verified:
        """
        Check and read one callback, over the bytes as they came; no I/O.

        Raises:
            BadSignature, StaleMessage, MalformedMessage: it has no effect.
        """
        ...

    def ack(self, refusal: Refusal | None = None) -> HttpReply:
        """Write the answer to a callback: received, or why not."""
        ...


@runtime_checkable
class PaysOut(Protocol):
    """A provider that sends money to persons; the rules of `Provider` hold."""

    async def transfer(self, transfer: TransferRequest) -> Result[TransferSnapshot]: ...

    async def query_transfer(self, transfer: TransferRequest) -> Result[TransferSnapshot]: ...


@runtime_checkable
class TellsBills(Protocol):
    """A provider that lists a day's money; the rules of `Provider` hold."""

    async def bill(self, day: date, kind: BillKind) -> Result[Bill]:
        """
        Fetch one day's bill.

        Returns:
            PENDING without a value while the provider is still making it, REJECTED
            when there will be none, UNKNOWN when it fails its own hash or summary.
        """
        ...
