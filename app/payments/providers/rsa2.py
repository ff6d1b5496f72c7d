"""
RSA PKCS#1 v1.5 with SHA-256 in canonical base64: what Alipay calls RSA2, and UnionPay's 5.1.0.

Nothing weaker is here on purpose: the hash is ours to choose, never the
message's, so a SHA-1 signature is simply a wrong one.
"""

import base64
import binascii
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

SIGNATURE_LENGTH_MAX: Final = 1_400  # base64 of an 8192-bit key's signature


def sign(key: RSAPrivateKey, text: bytes) -> str:
    """Sign; about 0.3 ms of CPU, outside the interpreter's lock."""
    return base64.b64encode(key.sign(text, PKCS1v15(), SHA256())).decode()


def is_signed(key: RSAPublicKey, text: bytes, signature: str) -> bool:
    """Whether `signature` is this key's for these bytes; in one spelling of base64 alone."""
    if not 0 < len(signature) <= SIGNATURE_LENGTH_MAX:
        return False
    try:
        given = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    if base64.b64encode(given).decode() != signature:
        return False
    try:
        key.verify(given, text, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
