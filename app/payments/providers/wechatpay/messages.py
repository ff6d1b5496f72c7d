"""
What WeChat Pay says, as types: strict where we act on it, deaf to the rest.

Numbers are JSON integers and nothing else; names and numbers are printable
ASCII; a key that is there twice makes the document unreadable, because two
readers could see two documents. Who paid (`payer`, `user_received_account`) is
not read at all: what is never held cannot leak.

Source:
    docs/PAYMENTS.md §1.5, §1.7, §1.8, §1.9 and §1.11.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.kernel.money import AMOUNT_MINOR_MAX
from app.payments.provider import MalformedMessage

Document = TypeVar("Document", bound=msgspec.Struct)

SEALED_ALGORITHM: Final = "AEAD_AES_256_GCM"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

# Whose account it is; dropped before the bytes of an answer are kept.
PERSONAL_FIELDS: Final = frozenset({"payer", "user_received_account", "openid", "user_name"})

Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]
Word: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Z_.]{1,64}\Z")]
Number: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-|*@]{1,64}\Z")]
Currency: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
Fen: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MINOR_MAX)]
Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A part encrypted with the merchant's API v3 key."""

    algorithm: str
    nonce: str
    ciphertext: str
    associated_data: str | None = None


class Resource(Sealed, frozen=True, kw_only=True):
    """The sealed part of a notification, and what kind of thing is in it."""

    original_type: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z_]{1,64}\Z")]


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a callback."""

    id: Name
    create_time: Moment
    event_type: Word
    resource_type: str
    resource: Resource


class PaymentAmount(msgspec.Struct, frozen=True, kw_only=True):
    """`total` is the order's price; what the payer paid after coupons is not our affair."""

    total: Fen
    currency: Currency


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One payment: the answer to a query, and what a notification holds."""

    mchid: Name
    out_trade_no: Number
    trade_state: Word
    appid: Name
    transaction_id: Name | None = None
    trade_type: str = ""
    success_time: Moment | None = None
    amount: PaymentAmount | None = None


class NotifiedRefundAmount(msgspec.Struct, frozen=True, kw_only=True):
    """The amount in a refund's notification, which names no currency."""

    refund: Fen


class NotifiedRefund(msgspec.Struct, frozen=True, kw_only=True):
    """One refund as a notification holds it: `refund_status`, not `status`."""

    mchid: Name
    out_trade_no: Number
    out_refund_no: Number
    refund_id: Name
    refund_status: Word
    amount: NotifiedRefundAmount


class RefundAmount(msgspec.Struct, frozen=True, kw_only=True):
    """The amount in the answer to a refund or to a query about it."""

    refund: Fen
    currency: Currency


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """One refund as answers tell it; they name no merchant."""

    out_trade_no: Number
    out_refund_no: Number
    refund_id: Name
    status: Word
    amount: RefundAmount


class NotifiedTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """One finished transfer as a notification holds it; `mch_id` is spelt so."""

    out_bill_no: Number
    transfer_bill_no: Name
    state: Word
    mch_id: Name
    transfer_amount: Fen
    fail_reason: str | None = None


class TransferBegun(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a single transfer; with `package_info` the payee's wallet accepts it."""

    out_bill_no: Number
    transfer_bill_no: Name
    state: Word
    package_info: str | None = None


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """One single transfer as a query tells it."""

    mch_id: Name
    out_bill_no: Number
    transfer_bill_no: Name
    appid: Name
    state: Word
    transfer_amount: Fen
    fail_reason: str | None = None


class BatchBegun(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a batch of transfers."""

    out_batch_no: Number
    batch_id: Name
    batch_status: Word = "ACCEPTED"


class BatchDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer of a batch as a query tells it."""

    mchid: Name
    out_batch_no: Number
    out_detail_no: Number
    detail_id: Name
    detail_status: Word
    transfer_amount: Fen
    appid: str = ""
    fail_reason: str | None = None


class BillAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a bill's file lies, for five minutes, and what it hashes to."""

    hash_type: str
    hash_value: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{40}\Z")]
    download_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,2000}\Z")]


class CodeUrl(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a native payment."""

    code_url: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,512}\Z")]


class PrepayId(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a payment inside a wallet or an app."""

    prepay_id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]


class H5Url(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a payment in a phone's browser."""

    h5_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,512}\Z")]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal; branch on `code`, never on `message`."""

    code: Word


class CertificateEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One platform certificate of the list, sealed."""

    serial_no: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{8,64}\Z")]
    encrypt_certificate: Sealed


class CertificateList(msgspec.Struct, frozen=True, kw_only=True):
    """GET /v3/certificates."""

    data: Annotated[tuple[CertificateEntry, ...], msgspec.Meta(min_length=1, max_length=100)]


def read_document(raw: bytes, type_: type[Document]) -> Document:
    """
    Read a JSON document, strictly; fields we do not know are ignored.

    Raises:
        MalformedMessage: no UTF-8, no JSON, a key twice, too deep, or a field is
            missing or wrong. Says where and what was expected, never what stood there.
    """
    document = _read_json(raw)
    try:
        return msgspec.convert(document, type_)
    except msgspec.ValidationError as error:
        raise MalformedMessage(why=str(error)) from error
    except UnicodeEncodeError:
        # A name holds half of a surrogate pair; the error would quote it.
        raise MalformedMessage(why="JSON: a name is no text") from None


def open_sealed(sealed: Sealed, api_v3_keys: Sequence[bytes]) -> bytes:
    """
    Decrypt what WeChat Pay sealed with one of the merchant's API v3 keys.

    The one before is tried too: when a key is replaced, messages under the old
    one are still on their way.

    Raises:
        MalformedMessage: it is not sealed with any of these keys.
    """
    if sealed.algorithm != SEALED_ALGORITHM:
        raise MalformedMessage(why="algorithm")
    nonce = sealed.nonce.encode("utf-8", "surrogatepass")
    try:
        ciphertext = base64.b64decode(sealed.ciphertext, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedMessage(why="ciphertext") from error
    if len(nonce) != NONCE_BYTES or len(ciphertext) < TAG_BYTES:
        raise MalformedMessage(why="nonce or ciphertext")
    associated = (sealed.associated_data or "").encode("utf-8", "surrogatepass")
    for key in api_v3_keys:
        try:
            return AESGCM(key).decrypt(nonce, ciphertext, associated)
        except InvalidTag:
            continue
    raise MalformedMessage(why="ciphertext: no API v3 key opens it")


def without_person(raw: bytes) -> bytes:
    """Return a verified answer without the fields that say who the payer is."""
    document = _read_json(raw)
    if not isinstance(document, Mapping):
        return b""
    kept = {name: value for name, value in document.items() if name not in PERSONAL_FIELDS}
    return json.dumps(kept, separators=(",", ":")).encode()


def _read_json(raw: bytes) -> Any:  # noqa: ANN401  JSON is anything
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_single_keys, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        # The error's text may quote the document; its kind is enough.
        raise MalformedMessage(why=f"JSON: {type(error).__name__}") from None


def _single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        message = "a key is there twice"
        raise ValueError(message)
    return document


def _no_constant(name: str) -> None:
    raise ValueError(name)
