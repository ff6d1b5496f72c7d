"""Alipay's side of the wire: its keys, and how it signs, written without the code under test."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

APP_ID: Final = "2021000000000001"
SELLER_ID: Final = "2088000000000002"
NUMBER: Final = "0123456789ABCDEFGHJKMNPQRS01"
REFUND_NUMBER: Final = f"R{NUMBER}L01"
TRADE_NO: Final = "2026112222001400000000000001"
NOW: Final = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)  # noon in Beijing
NOW_MS: Final = int(NOW.timestamp() * 1000)


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    """One key for each name in a run."""
    assert name
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def private_pem(name: str) -> str:
    return (
        key(name)
        .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        .decode()
    )


def public_pem(name: str) -> str:
    public = key(name).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def bare(pem: str) -> str:
    """A key as Alipay's tools print it: base64 in one line."""
    return "".join(line for line in pem.splitlines() if "-----" not in line)


def signature(text: bytes, signer: str = "alipay", digest: HashAlgorithm | None = None) -> str:
    signed = key(signer).sign(text, PKCS1v15(), digest or SHA256())
    return base64.b64encode(signed).decode()


def weak_signature(text: bytes) -> str:
    return signature(text, digest=SHA1())  # noqa: S303  the forgery under test


def signed_text(fields: Mapping[str, str]) -> bytes:
    unsigned = ("sign", "sign_type")
    return "&".join(f"{k}={fields[k]}" for k in sorted(fields) if k not in unsigned).encode()


def notification_fields(**changed: str | None) -> dict[str, str]:
    """What Alipay posts for a paid trade; a field set to None is left out."""
    fields: dict[str, str | None] = {
        "notify_time": "2026-11-22 12:00:05",
        "notify_type": "trade_status_sync",
        "notify_id": "2026112200222120005091234567890123",
        "app_id": APP_ID,
        "auth_app_id": APP_ID,
        "charset": "utf-8",
        "version": "1.0",
        "sign_type": "RSA2",
        "trade_no": TRADE_NO,
        "out_trade_no": NUMBER,
        "buyer_id": "2088000000000003",
        "seller_id": SELLER_ID,
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "12.34",
        "receipt_amount": "12.34",
        "subject": "Order 0123 一件",
        "gmt_create": "2026-11-22 11:59:58",
        "gmt_payment": "2026-11-22 12:00:04",
        "fund_bill_list": '[{"amount":"12.34","fundChannel":"ALIPAYACCOUNT"}]',
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def signed_form(fields: Mapping[str, str], signer: str = "alipay") -> bytes:
    """Sign and encode a notification."""
    return urlencode({**fields, "sign": signature(signed_text(fields), signer)}).encode()


def answer(
    method: str,
    content: bytes,
    *,
    signer: str = "alipay",
    serial: str | None = None,
    escaped: bool = False,
) -> bytes:
    """Write a signed answer around the exact bytes of its content."""
    member = f"{method.replace('.', '_')}_response".encode()
    told = content.replace(b"/", rb"\/") if escaped else content
    middle = b"" if serial is None else b',"alipay_cert_sn":"%s"' % serial.encode()
    sign = signature(content, signer).encode()
    return b'{"%s":%s%s,"sign":"%s"}' % (member, told, middle, sign)


def certificate(  # noqa: PLR0913  what a test varies of a certificate
    name: str,
    subject: str,
    issuer: tuple[str, str] | None = None,
    *,
    serial: int = 0x1234567890ABCDEF,
    authority: bool = False,
    days: int = 365,
    organization: str = "Test Alipay",
) -> x509.Certificate:
    """Issue a certificate for the key `name`; without an issuer it signs itself."""
    issuer_key, issuer_subject = issuer or (name, subject)
    usage = x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject, organization))
        .issuer_name(_name(issuer_subject, organization))
        .public_key(key(name).public_key())
        .serial_number(serial)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW - timedelta(days=1) + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key(issuer_key), SHA256())
    )


def curve_root() -> x509.Certificate:
    """A root that is no RSA certificate, as Alipay's bundle has one."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = _name("Test EC Root", "Test Alipay")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(77)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, SHA256())
    )


def pem(*certificates: x509.Certificate) -> str:
    """A bundle as Alipay hands it out: a blank line between certificates."""
    return "\n".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def serial_of(one: x509.Certificate, issuer: str, organization: str = "Test Alipay") -> str:
    named = f"CN={issuer},OU=Authority,O={organization},C=CN{one.serial_number}"
    return hashlib.md5(named.encode(), usedforsecurity=False).hexdigest()


def _name(common_name: str, organization: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Authority"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
