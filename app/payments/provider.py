"""
The one port to payment providers: what we ask of them, what they tell us.

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

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

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


# A refund turns WeChat's SUCCESS into REFUND: the money did come in.
CAPTURED_STATES: Final = frozenset(
    {PayState.PAID, PayState.PARTIAL_REFUND, PayState.REFUNDED},
)


class RefundStatus(StrEnum):
    """A refund as its provider sees it."""

    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    CLOSED = "closed"
    ABNORMAL = "abnormal"
    NOT_FOUND = "not_found"


class Product(StrEnum):
    """In which way the shopper meets the provider."""

    NATIVE = "native"  # a code on our page, scanned with the wallet
    QR = "qr"  # the same, shown by a cashier
    JSAPI = "jsapi"  # inside the wallet's own browser
    APP = "app"  # from our app into the wallet's
    H5 = "h5"  # from a phone's browser into the wallet
    WAP = "wap"
    PAGE = "page"  # on the provider's own page


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


Action: TypeAlias = QrAction | RedirectAction | FormAction | ParamsAction


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReference:
    """All that any provider needs to find a payment again."""

    number: str
    provider_number: str | None
    amount_minor: int
    currency: str
    created_at: datetime


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


@dataclass(frozen=True, slots=True)
class Result(Generic[Value]):
    """What one call came to; `value` is set when the provider told a state."""

    outcome: Outcome
    value: Value | None = None
    code: str = ""  # the provider's own word, for logs
    raw: bytes = b""  # the verified bytes the value was read from


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One message about one payment or refund, the same for every provider."""

    provider: str
    notification_id: str
    event_at: datetime
    about: PaySnapshot | RefundSnapshot


@dataclass(frozen=True, slots=True)
class Verified:
    """An event whose signature was checked, with the bytes that were signed."""

    event: Event
    headers: Mapping[str, str]
    raw: bytes


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
    `Outcome`. Calls may be repeated with the same number at any time.
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
