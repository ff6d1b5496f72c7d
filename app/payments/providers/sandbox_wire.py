"""
What the sandbox provider and its gateway say to each other, and how it is signed.

Both sides sign with HMAC-SHA256 over six lines, each ended by a newline:

    purpose      request, response or callback: one can never pass for another
    subject      METHOD (request, callback) or status (response)
    path         of the request; of the callback's URL
    timestamp    Unix seconds, ASCII digits
    nonce        of the request; a response repeats it, so an old answer fits no question
    body         the exact bytes, last and without a newline after it

Pure: keys and the time come in as arguments. The messages are msgspec structs;
their types are strict (1.0 and true are no integers), unknown fields are
ignored so that either side may learn new ones first.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec

from app.kernel.errors import BadSignature
from app.kernel.money import AMOUNT_MINOR_MAX
from app.payments.provider import PayState, Product, RefundStatus, StaleMessage

Message = TypeVar("Message", bound=msgspec.Struct)

WINDOW_SECONDS: Final = 300
KEY_BYTES_MIN: Final = 32

KEY_HEADER: Final = "Sandbox-Key"
TIMESTAMP_HEADER: Final = "Sandbox-Timestamp"
NONCE_HEADER: Final = "Sandbox-Nonce"
SIGNATURE_HEADER: Final = "Sandbox-Signature"

_DIGITS: Final = re.compile(r"[0-9]{1,11}", re.ASCII)


class Purpose(StrEnum):
    """What a signed message is."""

    REQUEST = "request"
    RESPONSE = "response"
    CALLBACK = "callback"


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets that a merchant and the gateway share, by key id; the first one signs."""

    secrets: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        assert self.secrets, "no key would mean that nothing is verified"
        assert all(len(secret) >= KEY_BYTES_MIN for secret in self.secrets.values())

    @property
    def signing(self) -> tuple[str, bytes]:
        """The key that new messages are signed with."""
        return next(iter(self.secrets.items()))


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature covers, but for the timestamp and the nonce in the headers."""

    purpose: Purpose
    subject: str
    path: str
    body: bytes


def sign(keys: Keys, message: Signed, now_seconds: int, nonce: str) -> dict[str, str]:
    """Return the four headers that sign a message."""
    key_id, secret = keys.signing
    return {
        KEY_HEADER: key_id,
        TIMESTAMP_HEADER: str(now_seconds),
        NONCE_HEADER: nonce,
        SIGNATURE_HEADER: _digest(secret, message, str(now_seconds), nonce),
    }


def verify(keys: Keys, message: Signed, headers: Mapping[str, str], now_seconds: int) -> str:
    """
    Check a message's signature, then its age.

    Returns:
        Its nonce.

    Raises:
        BadSignature: a header is missing or malformed, the key is unknown, or the
            signature is not that of these bytes.
        StaleMessage: signed more than five minutes before or after now.
    """
    told = {name.lower(): value for name, value in headers.items()}
    secret = keys.secrets.get(told.get(KEY_HEADER.lower(), ""))
    timestamp = told.get(TIMESTAMP_HEADER.lower(), "")
    nonce = told.get(NONCE_HEADER.lower(), "")
    if secret is None or not nonce or _DIGITS.fullmatch(timestamp) is None:
        raise BadSignature(purpose=message.purpose)
    expected = _digest(secret, message, timestamp, nonce).encode()
    given = told.get(SIGNATURE_HEADER.lower(), "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(expected, given):
        raise BadSignature(purpose=message.purpose)
    if abs(now_seconds - int(timestamp)) > WINDOW_SECONDS:
        raise StaleMessage(purpose=message.purpose)
    return nonce


def _digest(secret: bytes, message: Signed, timestamp: str, nonce: str) -> str:
    lines = (message.purpose, message.subject, message.path, timestamp, nonce, "")
    signed = "\n".join(lines).encode("utf-8", "surrogateescape") + message.body
    return hmac.new(secret, signed, hashlib.sha256).hexdigest()


Number: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{8,32}\Z")]
Currency: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
AmountMinor: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MINOR_MAX)]
Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]
ProviderNumber: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{0,64}\Z")]
Url: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,500}\Z")]
Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class CreatePayment(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/payments; answered with a PaymentMessage."""

    number: Number
    merchant_id: Name
    app_id: Name
    product: Product
    amount_minor: AmountMinor
    currency: Currency
    description: Annotated[str, msgspec.Meta(max_length=127)]
    expires_at: Moment
    callback_url: Url
    return_url: Url | None = None


class PaymentMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's view of one payment: the answer to create, query and close."""

    number: Number
    merchant_id: Name
    app_id: Name
    state: PayState
    amount_minor: AmountMinor
    currency: Currency
    page: str
    provider_number: ProviderNumber | None = None
    paid_at: Moment | None = None


class CreateRefund(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v1/refunds; answered with a RefundMessage."""

    number: Number
    payment_number: Number
    merchant_id: Name
    amount_minor: AmountMinor
    currency: Currency
    reason: Annotated[str, msgspec.Meta(max_length=80)]
    callback_url: Url


class RefundMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's view of one refund: the answer to create and query."""

    number: Number
    payment_number: Number
    merchant_id: Name
    status: RefundStatus
    amount_minor: AmountMinor
    currency: Currency
    provider_number: ProviderNumber


class CallbackMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway posts to a callback URL; one of the two is set."""

    id: Name
    created_at: Moment
    payment: PaymentMessage | None = None
    refund: RefundMessage | None = None


class ErrorMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal; branch on `code`, never on `message`."""

    code: str
    message: str = ""


NOT_FOUND_CODE: Final = "NOT_FOUND"


class UnreadableMessage(ValueError):
    """The bytes are not such a message; the text says where."""


def read_message(raw: bytes, type_: type[Message]) -> Message:
    """
    Decode one message, strictly.

    Raises:
        UnreadableMessage: it is no JSON, too deep, or a field is missing or wrong.
    """
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableMessage(str(error)) from error
