"""
How UnionPay 5.1.0 signs, and whose signature is UnionPay's; pure.

The signed text is the sorted pairs; what RSA signs is the hex SHA-256 of it, as
ASCII. A message brings the certificate it was signed with, so the certificate is
what must be checked: its time, its chain to the root and the authorities that we
were given, and that it names UnionPay. Without the last one any company's
certificate of the same authority would do.

Source:
    docs/PAYMENTS.md §3, and row 13 of the table in §6.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509.oid import NameOID

from app.kernel.errors import BadSignature
from app.payments.providers import rsa2
from app.payments.providers.chains import UNPARSABLE, is_issued_by, rsa_key
from app.payments.providers.forms import joined
from app.payments.providers.keys import read_certificate

VERSION: Final = "5.1.0"
BY_CERTIFICATE: Final = "01"  # signMethod
CERTIFICATE_LENGTH_MAX: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose certificates we take for UnionPay's."""

    roots: Sequence[x509.Certificate]
    authorities: Sequence[x509.Certificate]
    names: Collection[str]  # of which one must be the third part of the common name

    def __post_init__(self) -> None:
        assert self.roots, "no root would mean that nothing is verified"
        assert all(self.names), "an empty name would be anybody's"


def digest(fields: Mapping[str, str]) -> bytes:
    """Write what RSA signs: the hex digest of all fields but `signature` and empty ones."""
    kept = {name: value for name, value in fields.items() if value and name != "signature"}
    return hashlib.sha256(joined(kept).encode()).hexdigest().encode()


def sign_fields(key: RSAPrivateKey, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields as they are sent: without empty ones, with `signature`."""
    sent = {name: value for name, value in fields.items() if value}
    return {**sent, "signature": rsa2.sign(key, digest(sent))}


def verify_fields(fields: Mapping[str, str], trust: Trust, now: datetime) -> None:
    """
    Check that UnionPay signed a message.

    Raises:
        BadSignature: it did not, or in another version or with another method.
    """
    if fields.get("version") != VERSION or fields.get("signMethod") != BY_CERTIFICATE:
        raise BadSignature(why="another version or method")
    key = _unionpays_key(fields.get("signPubKeyCert", ""), trust, now)
    if not rsa2.is_signed(key, digest(fields), fields.get("signature", "")):
        raise BadSignature(why="the signature is not that of these fields")


def _unionpays_key(pem: str, trust: Trust, now: datetime) -> RSAPublicKey:
    if not 0 < len(pem) <= CERTIFICATE_LENGTH_MAX:
        raise BadSignature(why="no certificate")
    try:
        told = read_certificate(pem)
        key = rsa_key(told.first)
        name = company_name(told.first)
    except UNPARSABLE as error:
        raise BadSignature(why="the certificate cannot be read") from error
    if len(told.chain) != 1 or name not in trust.names:
        raise BadSignature(why="the certificate is not UnionPay's")
    if not is_issued_by(told.first, trust.roots, trust.authorities, now):
        raise BadSignature(why="the certificate was not issued by whom we trust")
    return key


def company_name(certificate: x509.Certificate) -> str:
    """Return the third part of the common name, `041@8310…@company@0001…`; empty without one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        return ""
    parts = str(names[0].value).split("@")
    return parts[2] if len(parts) > 2 else ""
