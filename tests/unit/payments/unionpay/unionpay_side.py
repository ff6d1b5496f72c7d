"""UnionPay's side of the wire: its certificates, and how it signs, written without our code."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

MERCHANT_ID: Final = "777290058110048"
NUMBER: Final = "0123456789ABCDEFGHJKMNPQRS01"
REFUND_NUMBER: Final = f"R{NUMBER}L01"
QUERY_ID: Final = "202611221200041234568"
COMPANY: Final = "中国银联股份有限公司"
NOW: Final = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)  # noon in Beijing
NOW_MS: Final = int(NOW.timestamp() * 1000)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "CFCA Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    """One key for each name in a run."""
    assert name
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def private_pem(name: str) -> str:
    form = PrivateFormat.PKCS8
    return key(name).private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def certificate(  # noqa: PLR0913  what a test varies of a certificate
    name: str,
    subject: str,
    issuer: tuple[str, str] | None = None,
    *,
    serial: int = 1,
    authority: bool = False,
    since: timedelta = timedelta(days=-1),
    until: timedelta = timedelta(days=365),
) -> x509.Certificate:
    """Issue a certificate for the key `name`; without an issuer it signs itself."""
    issuer_key, issuer_subject = issuer or (name, subject)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer_subject))
        .public_key(key(name).public_key())
        .serial_number(serial)
        .not_valid_before(NOW + since)
        .not_valid_after(NOW + until)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(key(issuer_key), SHA256())
    )


def named(company: str) -> str:
    """A common name as CFCA writes it."""
    return f"041@8310000000083040@{company}@00016494"


def pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


ROOT: Final = certificate("root", "CFCA Test Root", authority=True)
AUTHORITY: Final = certificate(
    "authority", "CFCA Test OCA1", ("root", "CFCA Test Root"), authority=True
)
ISSUER: Final = ("authority", "CFCA Test OCA1")
UNIONPAY: Final = certificate("unionpay", named(COMPANY), ISSUER, serial=2)
MERCHANT: Final = certificate("merchant", named("某某商城"), ISSUER, serial=68_759_585_097)


def signature(
    fields: Mapping[str, str], signer: str = "unionpay", digest: HashAlgorithm | None = None
) -> str:
    """Sign the hex digest of the sorted fields."""
    kept = sorted((k, v) for k, v in fields.items() if v and k != "signature")
    text = "&".join(f"{name}={value}" for name, value in kept).encode()
    hexed = hashlib.sha256(text).hexdigest()
    if isinstance(digest, SHA1):  # version 5.0.0 hashes twice with it
        hexed = hashlib.sha1(text, usedforsecurity=False).hexdigest()
    signed = key(signer).sign(hexed.encode(), PKCS1v15(), digest or SHA256())
    return base64.b64encode(signed).decode()


def signed(
    fields: Mapping[str, str], signer: str = "unionpay", brought: str | None = None
) -> dict[str, str]:
    whole = {**fields, "signPubKeyCert": pem(UNIONPAY) if brought is None else brought}
    return {**whole, "signature": signature(whole, signer)}


def notification_fields(**changed: str | None) -> dict[str, str]:
    """What UnionPay posts for a paid order; a field set to None is left out."""
    fields: dict[str, str | None] = {
        "version": "5.1.0",
        "encoding": "UTF-8",
        "signMethod": "01",
        "txnType": "01",
        "txnSubType": "01",
        "bizType": "000201",
        "accessType": "0",
        "merId": MERCHANT_ID,
        "orderId": NUMBER,
        "txnTime": "20261122115958",
        "txnAmt": "1234",
        "currencyCode": "156",
        "queryId": QUERY_ID,
        "traceNo": "123456",
        "traceTime": "1122120004",
        "accNo": "6226********0048",
        "respCode": "00",
        "respMsg": "成功[0000000]",
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def signed_form(
    fields: Mapping[str, str], signer: str = "unionpay", brought: str | None = None
) -> bytes:
    return urlencode(signed(fields, signer, brought)).encode()


def answer_text(fields: Mapping[str, str]) -> bytes:
    """An answer to a request: the pairs as they are, nothing encoded."""
    return "&".join(f"{name}={value}" for name, value in fields.items()).encode()
