"""
RSA2 as Alipay makes and checks it; shares nothing with the merchant's side.

Source:
    docs/PAYMENTS.md §2.1, §2.2 and §2.4.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from app.sandbox.alipay.merchants import Merchant


def signed_text(parameters: Mapping[str, str], *, without: frozenset[str]) -> str:
    """Join what a signature covers: sorted, not encoded, empty values left out."""
    return "&".join(
        f"{name}={parameters[name]}"
        for name in sorted(parameters)
        if name not in without and parameters[name]
    )


def is_signed_by(merchant: Merchant, parameters: Mapping[str, str]) -> bool:
    """Whether the app's key signed this request."""
    text = signed_text(parameters, without=frozenset({"sign"}))
    try:
        raw = base64.b64decode(parameters.get("sign", ""), validate=True)
        merchant.app_public_key.verify(raw, text.encode(), padding.PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def sign(key: RSAPrivateKey, text: str) -> str:
    return base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), SHA256())).decode()


def sign_notification(key: RSAPrivateKey, parameters: Mapping[str, str]) -> dict[str, str]:
    """Add the two parameters that a notification's signature does not cover."""
    text = signed_text(parameters, without=frozenset({"sign", "sign_type"}))
    return {**parameters, "sign_type": "RSA2", "sign": sign(key, text)}


def write_answer(name: str, content: Mapping[str, Any], merchant: Merchant | None) -> bytes:
    """
    Write an answer; signed over the very text that stands in it.

    Args:
        name: `<method>_response`, with underscores.
        content: what is said.
        merchant: who is told; None: the gateway itself refuses, and signs nothing.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    parts = [f'"{name}":{text}']
    if merchant is not None:
        if merchant.certificates is not None:
            parts.append(f'"alipay_cert_sn":"{merchant.certificates.alipay_serial}"')
        parts.append(f'"sign":"{sign(merchant.private_key, text)}"')
    return ("{" + ",".join(parts) + "}").encode()
