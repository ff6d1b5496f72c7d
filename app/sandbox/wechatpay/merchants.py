"""
Whom this side of WeChat Pay knows: documents of text, and the keys read from them.

In public-key mode each merchant has a public key of the platform for itself, so
the platform's keys stand in the merchant's document.

Source:
    docs/PAYMENTS.md §1.4.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from app.kernel.errors import BadConfiguration


class KeyKind(StrEnum):
    """In which of its two modes the platform signs."""

    PUBLIC_KEY = "public_key"
    CERTIFICATE = "certificate"


class WechatpayMerchant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One merchant as the gateway knows it."""

    mchid: str
    appids: tuple[str, ...]  # bound to it
    certificate_serial: str  # of its API certificate, hex
    public_key: str  # PEM, of that certificate
    api_v3_key: str  # 32 characters
    platform_private_key: str  # PEM
    platform_certificate: str  # PEM, of that key
    platform_public_key_id: str  # PUB_KEY_ID_…
    notify_with: KeyKind = KeyKind.PUBLIC_KEY

    def __repr__(self) -> str:
        return f"WechatpayMerchant(mchid={self.mchid!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchant:
    """One merchant with its keys loaded."""

    mchid: str
    appids: frozenset[str]
    serial: str
    public_key: RSAPublicKey = field(repr=False)
    api_v3_key: bytes = field(repr=False)
    platform_key: RSAPrivateKey = field(repr=False)
    platform_certificate: x509.Certificate = field(repr=False)
    platform_public_key_id: str
    notify_with: KeyKind

    @property
    def platform_serial(self) -> str:
        return f"{self.platform_certificate.serial_number:X}"

    def serial_for(self, kind: KeyKind) -> str:
        """Return what `Wechatpay-Serial` says in one of the two modes."""
        is_key = kind is KeyKind.PUBLIC_KEY
        return self.platform_public_key_id if is_key else self.platform_serial


def read_merchants(documents: Iterable[WechatpayMerchant]) -> dict[str, Merchant]:
    """
    Load every merchant's keys, by mchid.

    Raises:
        BadConfiguration: a key is malformed; says whose.
    """
    return {document.mchid: _read(document) for document in documents}


def _read(document: WechatpayMerchant) -> Merchant:
    try:
        public_key = load_pem_public_key(document.public_key.encode())
        platform_key = load_pem_private_key(document.platform_private_key.encode(), password=None)
        certificate = x509.load_pem_x509_certificate(document.platform_certificate.encode())
    except ValueError as error:
        raise _bad(document, "a key is not in PEM") from error
    if not isinstance(public_key, RSAPublicKey) or not isinstance(platform_key, RSAPrivateKey):
        raise _bad(document, "a key is not RSA")
    api_v3_key = document.api_v3_key.encode()
    if len(api_v3_key) != 32:
        raise _bad(document, "api_v3_key is not 32 bytes long")
    return Merchant(
        mchid=document.mchid,
        appids=frozenset(document.appids),
        serial=document.certificate_serial.upper(),
        public_key=public_key,
        api_v3_key=api_v3_key,
        platform_key=platform_key,
        platform_certificate=certificate,
        platform_public_key_id=document.platform_public_key_id,
        notify_with=document.notify_with,
    )


def _bad(document: WechatpayMerchant, why: str) -> BadConfiguration:
    return BadConfiguration(setting="sandbox.wechatpay", mchid=document.mchid, why=why)
