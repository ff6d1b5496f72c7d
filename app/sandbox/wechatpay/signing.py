"""
Signatures of WeChat Pay as the platform makes and checks them.

Written from the protocol and sharing nothing with the merchant's side, so that
each proves the other.

Source:
    docs/PAYMENTS.md §1.2 and §1.3.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from app.sandbox.wechatpay.merchants import KeyKind, Merchant

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
PROBE_PREFIX: Final = "WECHATPAY/SIGNTEST/"
WINDOW_SECONDS: Final = 300

_FIELD: Final = re.compile(r'([a-z_]+)="([^"]*)"')
_FIELDS: Final = frozenset({"mchid", "nonce_str", "signature", "timestamp", "serial_no"})
_DIGITS: Final = re.compile(r"[0-9]{1,11}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the header of that name says."""

    mchid: str
    nonce: str
    signature: str
    timestamp: str
    serial: str


def read_authorization(header: str) -> Authorization | None:
    """Read the header; None when it is not one of this scheme, whole."""
    scheme, _, rest = header.partition(" ")
    told = dict(_FIELD.findall(rest))
    whole = ",".join(f'{name}="{value}"' for name, value in told.items()) == rest
    if scheme != SCHEME or not whole or told.keys() != _FIELDS:
        return None
    return Authorization(
        told["mchid"], told["nonce_str"], told["signature"], told["timestamp"], told["serial_no"]
    )


def is_timely(timestamp: str, now_seconds: int) -> bool:
    """Whether a request was signed within the last five minutes, or will be in the next."""
    digits = _DIGITS.fullmatch(timestamp) is not None
    return digits and abs(now_seconds - int(timestamp)) < WINDOW_SECONDS


def is_signed_by(
    merchant: Merchant, told: Authorization, method: str, target: str, body: bytes
) -> bool:
    """Whether the merchant's key signed this request; `target` is as it came over the wire."""
    head = f"{method}\n{target}\n{told.timestamp}\n{told.nonce}\n".encode()
    return told.serial == merchant.serial and _verifies(
        merchant.public_key, told.signature, head + body + b"\n"
    )


def is_signed_over(merchant: Merchant, signature: str, *lines: str) -> bool:
    """Whether the merchant's key signed these lines, as a wallet is handed them."""
    text = "".join(f"{line}\n" for line in lines).encode()
    return _verifies(merchant.public_key, signature, text)


def _verifies(key: RSAPublicKey, signature: str, text: bytes) -> bool:
    try:
        raw = base64.b64decode(signature, validate=True)
        key.verify(raw, text, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def platform_headers(
    merchant: Merchant, kind: KeyKind, body: bytes, now_seconds: int
) -> dict[str, str]:
    """Sign what the platform says."""
    return _headers(merchant, kind, body, now_seconds, merchant.platform_key)


def forged_headers(
    merchant: Merchant, body: bytes, now_seconds: int, key: RSAPrivateKey
) -> dict[str, str]:
    """Sign as somebody who claims to be the platform."""
    return _headers(merchant, merchant.notify_with, body, now_seconds, key)


def probe_headers(merchant: Merchant, body: bytes, now_seconds: int) -> dict[str, str]:
    """Sign nothing, the way the platform does to see whether anybody looks."""
    headers = platform_headers(merchant, merchant.notify_with, body, now_seconds)
    headers["Wechatpay-Signature"] = PROBE_PREFIX + headers["Wechatpay-Signature"]
    return headers


def _headers(
    merchant: Merchant, kind: KeyKind, body: bytes, now_seconds: int, key: RSAPrivateKey
) -> dict[str, str]:
    nonce = secrets.token_hex(16)
    text = f"{now_seconds}\n{nonce}\n".encode() + body + b"\n"
    signature = base64.b64encode(key.sign(text, padding.PKCS1v15(), SHA256())).decode()
    return {
        "Wechatpay-Timestamp": str(now_seconds),
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": signature,
        "Wechatpay-Signature-Type": SCHEME,
        "Wechatpay-Serial": merchant.serial_for(kind),
    }


def seal(merchant: Merchant, plain: bytes, associated: str) -> Mapping[str, str]:
    """Encrypt for the merchant alone."""
    nonce = secrets.token_hex(6)
    sealed = AESGCM(merchant.api_v3_key).encrypt(nonce.encode(), plain, associated.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(sealed).decode(),
        "associated_data": associated,
        "nonce": nonce,
    }


def open_field(merchant: Merchant, sealed: str) -> str | None:
    """Decrypt a field that was encrypted for the platform; None when it was not."""
    # The protocol's own choice of hash; for OAEP it need not resist collisions.
    scheme = padding.OAEP(padding.MGF1(SHA1()), SHA1(), None)  # noqa: S303  WeChat Pay's own
    try:
        raw = base64.b64decode(sealed, validate=True)
        return merchant.platform_key.decrypt(raw, scheme).decode()
    except (ValueError, binascii.Error):
        return None
