"""
What WeChat Pay v3 signs, and how: pure functions over exact bytes.

Three texts are signed, each line ended by a newline, the last one too:

    request     METHOD, path with query, timestamp, nonce, body       by the merchant
    message     timestamp, nonce, body (answers and notifications)    by WeChat Pay
    invocation  app id, timestamp, nonce, package                     by the merchant

Always RSA PKCS#1 v1.5 with SHA-256, in base64. Which key a message is checked
with is decided in `certificates`; the body is never decoded before its check.

Source:
    docs/PAYMENTS.md §1.2, §1.3 and §1.6.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from app.kernel.errors import BadSignature
from app.payments.provider import StaleMessage

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
WINDOW_SECONDS: Final = 300

SERIAL_HEADER: Final = "Wechatpay-Serial"
TIMESTAMP_HEADER: Final = "Wechatpay-Timestamp"
NONCE_HEADER: Final = "Wechatpay-Nonce"
SIGNATURE_HEADER: Final = "Wechatpay-Signature"
TYPE_HEADER: Final = "Wechatpay-Signature-Type"

_DIGITS: Final = re.compile(r"[0-9]{1,11}", re.ASCII)
_NONCE: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_SERIAL: Final = re.compile(r"[0-9A-Za-z_]{1,128}", re.ASCII)
_HEX: Final = re.compile(r"[0-9A-Fa-f]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Merchant:
    """Who signs: the merchant's number, its API certificate's serial and private key."""

    mchid: str
    serial: str
    key: RSAPrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it goes out."""

    method: str
    target: str  # path and query, exactly as they are sent
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Seal:
    """The signature headers of one answer or notification, in shape but not yet checked."""

    serial: str
    timestamp: str
    nonce: str
    signature: bytes = field(repr=False)


def request_text(request: Request, timestamp: str, nonce: str) -> bytes:
    """Write what a request signs."""
    head = f"{request.method}\n{request.target}\n{timestamp}\n{nonce}\n"
    return head.encode() + request.body + b"\n"


def message_text(timestamp: str, nonce: str, body: bytes) -> bytes:
    """Write what an answer or a notification signs."""
    return f"{timestamp}\n{nonce}\n".encode() + body + b"\n"


def invocation_text(app_id: str, timestamp: str, nonce: str, package: str) -> bytes:
    """Write what the wallet checks before it opens; `package` is what it is handed."""
    return f"{app_id}\n{timestamp}\n{nonce}\n{package}\n".encode()


def sign(key: RSAPrivateKey, text: bytes) -> str:
    """Sign a text; about 0.3 ms of CPU, outside the interpreter's lock."""
    return base64.b64encode(key.sign(text, PKCS1v15(), SHA256())).decode()


def authorization(merchant: Merchant, request: Request, timestamp: str, nonce: str) -> str:
    """Return the Authorization header of one request."""
    signature = sign(merchant.key, request_text(request, timestamp, nonce))
    return (
        f'{SCHEME} mchid="{merchant.mchid}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{merchant.serial}"'
    )


def encrypt_field(key: RSAPublicKey, text: str) -> str:
    """Encrypt one personal field of a request for WeChat Pay: OAEP with SHA-1, its only way."""
    padding = OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None)  # noqa: S303  the protocol's
    return base64.b64encode(key.encrypt(text.encode(), padding)).decode()


def serial_name(serial: str) -> str:
    """
    Return the name a serial is kept under.

    A certificate's serial is a number written in hex, so case and leading zeros
    do not count; a public key's id is a name and is compared as it is.
    """
    if _HEX.fullmatch(serial):
        return serial.upper().lstrip("0")
    return serial


def read_seal(headers: Mapping[str, str]) -> Seal | None:
    """
    Read the signature headers of a message.

    Returns:
        None when it carries no signature at all: most refusals do not.

    Raises:
        BadSignature: a header is missing, twice there or malformed. Base64 must be
            canonical, so that no two header values stand for one signature.
    """
    told = _signature_headers(headers)
    if not told:
        return None
    if told.get(TYPE_HEADER.lower(), SCHEME) != SCHEME:
        raise BadSignature(why="another algorithm")
    timestamp = _shaped(told, TIMESTAMP_HEADER, _DIGITS)
    nonce = _shaped(told, NONCE_HEADER, _NONCE)
    serial = _shaped(told, SERIAL_HEADER, _SERIAL)
    return Seal(serial_name(serial), timestamp, nonce, _signature_bytes(told))


def check_seal(seal: Seal, key: RSAPublicKey, body: bytes, now_seconds: int) -> None:
    """
    Check a message's signature, then its age.

    Raises:
        BadSignature: it is not the signature of these bytes by this key.
        StaleMessage: signed more than five minutes before or after now.
    """
    try:
        key.verify(
            seal.signature, message_text(seal.timestamp, seal.nonce, body), PKCS1v15(), SHA256()
        )
    except InvalidSignature as error:
        raise BadSignature(serial=seal.serial) from error
    if abs(now_seconds - int(seal.timestamp)) > WINDOW_SECONDS:
        raise StaleMessage(signed_at=seal.timestamp)


def _signature_headers(headers: Mapping[str, str]) -> dict[str, str]:
    wanted = {
        name.lower()
        for name in (SERIAL_HEADER, TIMESTAMP_HEADER, NONCE_HEADER, SIGNATURE_HEADER, TYPE_HEADER)
    }
    told: dict[str, str] = {}
    for name, value in headers.items():  # a multidict yields a doubled header twice
        lowered = name.lower()
        if lowered not in wanted:
            continue
        if lowered in told:
            raise BadSignature(why=f"{lowered} is there twice")
        told[lowered] = value
    return told


def _shaped(told: Mapping[str, str], header: str, shape: re.Pattern[str]) -> str:
    value = told.get(header.lower(), "")
    if shape.fullmatch(value) is None:
        raise BadSignature(why=f"{header} is missing or malformed")
    return value


def _signature_bytes(told: Mapping[str, str]) -> bytes:
    given = told.get(SIGNATURE_HEADER.lower(), "")
    try:
        signature = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSignature(why="the signature is no base64") from error
    if not signature or base64.b64encode(signature).decode() != given:
        raise BadSignature(why="the signature is no canonical base64")
    return signature
