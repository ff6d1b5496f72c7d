"""
Whom this side of Alipay knows: documents of text, and the keys read from them.

An app is in key mode, where each side was told the other's public key, or in
certificate mode, where requests and answers name certificates by serial.

Source:
    docs/PAYMENTS.md §2.1 and §2.2.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from app.kernel.errors import BadConfiguration

_RSA_SIGNATURES = "1.2.840.113549.1.1."  # the arc of PKCS #1


class AlipayMerchant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One app of a merchant as the gateway knows it; the last three: certificate mode."""

    app_id: str
    seller_id: str  # the merchant's PID
    private_key: str  # PEM, the gateway's
    app_public_key: str = ""  # PEM; in certificate mode it is in the certificate
    app_certificate: str = ""  # PEM
    alipay_certificate: str = ""  # PEM, of `private_key`
    root_certificate: str = ""  # PEM, one or more
    is_blocked: bool = False  # its contract is suspended: nobody can begin to pay it

    def __repr__(self) -> str:
        return f"AlipayMerchant(app_id={self.app_id!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What certificate mode adds."""

    app_serial: str
    alipay_serial: str
    root_serial: str
    alipay_pem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchant:
    """One app with its keys loaded."""

    app_id: str
    seller_id: str
    private_key: RSAPrivateKey = field(repr=False)
    app_public_key: RSAPublicKey = field(repr=False)
    certificates: Certificates | None = None
    is_blocked: bool = False


def read_merchants(documents: Iterable[AlipayMerchant]) -> dict[str, Merchant]:
    """
    Load every app's keys, by app id.

    Raises:
        BadConfiguration: a key is malformed; says whose.
    """
    return {document.app_id: _read(document) for document in documents}


def _read(document: AlipayMerchant) -> Merchant:
    try:
        private_key = load_pem_private_key(document.private_key.encode(), password=None)
        public_key, certificates = _public_side(document)
    except ValueError as error:
        raise _bad(document, "a key is not in PEM") from error
    if not isinstance(public_key, RSAPublicKey) or not isinstance(private_key, RSAPrivateKey):
        raise _bad(document, "a key is not RSA")
    return Merchant(
        app_id=document.app_id,
        seller_id=document.seller_id,
        private_key=private_key,
        app_public_key=public_key,
        certificates=certificates,
        is_blocked=document.is_blocked,
    )


def _public_side(document: AlipayMerchant) -> tuple[object, Certificates | None]:
    if not document.app_certificate:
        return load_pem_public_key(document.app_public_key.encode()), None
    app = x509.load_pem_x509_certificate(document.app_certificate.encode())
    alipay = x509.load_pem_x509_certificate(document.alipay_certificate.encode())
    roots = x509.load_pem_x509_certificates(document.root_certificate.encode())
    return app.public_key(), Certificates(
        app_serial=certificate_serial(app),
        alipay_serial=certificate_serial(alipay),
        root_serial="_".join(map(certificate_serial, filter(_is_rsa_signed, roots))),
        alipay_pem=document.alipay_certificate,
    )


def certificate_serial(certificate: x509.Certificate) -> str:
    """Name a certificate as Alipay does: MD5 over its issuer and its serial number."""
    issuer = certificate.issuer.rfc4514_string()
    text = f"{issuer}{certificate.serial_number}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _is_rsa_signed(certificate: x509.Certificate) -> bool:
    return certificate.signature_algorithm_oid.dotted_string.startswith(_RSA_SIGNATURES)


def _bad(document: AlipayMerchant, why: str) -> BadConfiguration:
    return BadConfiguration(setting="sandbox.alipay", app_id=document.app_id, why=why)
