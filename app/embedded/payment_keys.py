"""
`<data-dir>/payment_keys.json`: the keys of both sides of WeChat Pay and Alipay.

The merchant of an embedded deployment and the sandbox gateway are told only what
each of them would hold, as the account documents of the providers and of the
gateway. Made at the first run and kept: callbacks on their way are sealed with
them. The certificates are good for ten years and for nothing else.
"""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from app.embedded.private_files import read_private, write_private

KEYS_NAME: Final = "payment_keys.json"
MCHID: Final = "1900000109"
WECHATPAY_APP: Final = "wxdoorbuster000001"
SELLER_ID: Final = "2088000000000109"
ALIPAY_APP: Final = "2021000000000109"
TRANSFER_SCENE: Final = "1005"

_KEY_BITS: Final = 2_048
_EXPONENT: Final = 65_537
_LIFE: Final = timedelta(days=3_650)


def _new_id() -> str:
    return f"PUB_KEY_ID_{secrets.randbelow(10**24):024d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A private key and a certificate of it, both PEM."""

    private_key: str = field(repr=False)
    public_key: str
    certificate: str
    serial: str  # of the certificate, upper-case hex


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentKeys:
    """Every key of both sides; who may see which is said by the documents made of it."""

    wechatpay_merchant: Identity
    wechatpay_platform: Identity
    alipay_root: Identity
    alipay_app: Identity
    alipay_gateway: Identity
    api_v3_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    platform_public_key_id: str = field(default_factory=_new_id)

    def wechatpay_account(self, gateway_url: str) -> dict[str, Any]:
        """Describe the merchant's account at WeChat Pay as its provider reads it."""
        return {
            "mchid": MCHID,
            "appid": WECHATPAY_APP,
            "private_key": self.wechatpay_merchant.private_key,
            "certificate_serial": self.wechatpay_merchant.serial,
            "api_v3_keys": [self.api_v3_key],
            "platform_public_key_id": self.platform_public_key_id,
            "platform_public_key": self.wechatpay_platform.public_key,
            "platform_certificates": True,
            "base_url": gateway_url,
            "backup_url": "",
            "transfer_scene_id": TRANSFER_SCENE,
        }

    def wechatpay_merchant_document(self) -> dict[str, Any]:
        """Describe the same merchant as the gateway knows it."""
        return {
            "mchid": MCHID,
            "appids": [WECHATPAY_APP],
            "certificate_serial": self.wechatpay_merchant.serial,
            "public_key": self.wechatpay_merchant.public_key,
            "api_v3_key": self.api_v3_key,
            "platform_private_key": self.wechatpay_platform.private_key,
            "platform_certificate": self.wechatpay_platform.certificate,
            "platform_public_key_id": self.platform_public_key_id,
        }

    def alipay_account(self, gateway_url: str) -> dict[str, Any]:
        """Describe the merchant's app at Alipay as its provider reads it: certificate mode."""
        return {
            "app_id": ALIPAY_APP,
            "seller_id": SELLER_ID,
            "private_key": self.alipay_app.private_key,
            "app_certificate": self.alipay_app.certificate,
            "alipay_certificates": [self.alipay_gateway.certificate],
            "alipay_root_certificate": self.alipay_root.certificate,
            "gateway_url": f"{gateway_url}/gateway.do",
        }

    def alipay_merchant_document(self) -> dict[str, Any]:
        """Describe the same app as the gateway knows it."""
        return {
            "app_id": ALIPAY_APP,
            "seller_id": SELLER_ID,
            "private_key": self.alipay_gateway.private_key,
            "app_certificate": self.alipay_app.certificate,
            "alipay_certificate": self.alipay_gateway.certificate,
            "root_certificate": self.alipay_root.certificate,
        }


def keep_payment_keys(data_dir: Path) -> PaymentKeys:
    """Read the payment keys of a data directory, making them at the first run; mode 0600."""
    path = data_dir / KEYS_NAME
    kept = read_private(path, PaymentKeys)
    if kept is None:
        kept = new_payment_keys()
        write_private(path, kept)
    return kept


def new_payment_keys() -> PaymentKeys:
    """Make every key anew; takes about half a second."""
    root_key = generate_private_key(_EXPONENT, _KEY_BITS)
    root = _identity(root_key, "Sandbox Root", root_key, "Sandbox Root")

    def under_root(name: str) -> Identity:
        key = generate_private_key(_EXPONENT, _KEY_BITS)
        return _identity(key, name, root_key, "Sandbox Root")

    return PaymentKeys(
        wechatpay_merchant=under_root("Sandbox Merchant"),
        wechatpay_platform=under_root("Sandbox WeChat Pay"),
        alipay_root=root,
        alipay_app=under_root("Sandbox App"),
        alipay_gateway=under_root("Sandbox Alipay"),
    )


def _identity(
    key: RSAPrivateKey, name: str, issuer_key: RSAPrivateKey, issuer_name: str
) -> Identity:
    now = datetime.now(UTC)
    is_root = name == issuer_name
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .sign(issuer_key, SHA256())
    )
    public_key = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Identity(
        private_key=private_key.decode(),
        public_key=public_key.decode(),
        certificate=certificate.public_bytes(Encoding.PEM).decode(),
        serial=f"{certificate.serial_number:040X}",
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Doorbuster"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Sandbox"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
