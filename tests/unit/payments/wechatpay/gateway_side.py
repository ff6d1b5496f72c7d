"""WeChat Pay's side of the wire, written from its documents and not with our own code."""

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from app.payments.providers.keys import SecretText, SigningKey, VerifyingKey
from app.payments.providers.wechatpay.settings import WechatpayAccount

NOW_SECONDS: Final = 1_800_000_000
MCHID: Final = "1900000109"
APPID: Final = "wxd678efh567hg6787"
API_KEY: Final = "k" * 32
OLD_API_KEY: Final = "o" * 32
PUBLIC_KEY_ID: Final = "PUB_KEY_ID_0119000001092026112200321600000001"
NUMBER: Final = "0123456789ABCDEFGHJKMNPQRS01"
REFUND_NUMBER: Final = f"R{NUMBER}L01"

TRANSACTION: Final = {
    "mchid": MCHID,
    "appid": APPID,
    "out_trade_no": NUMBER,
    "transaction_id": "4200001234202611220000000001",
    "trade_type": "NATIVE",
    "trade_state": "SUCCESS",
    "trade_state_desc": "支付成功",
    "bank_type": "CMC",
    "attach": "",
    "success_time": "2027-01-15T15:59:00+08:00",
    "payer": {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
    "amount": {"total": 100, "payer_total": 90, "currency": "CNY", "payer_currency": "CNY"},
}
REFUND: Final = {
    "mchid": MCHID,
    "out_trade_no": NUMBER,
    "transaction_id": "4200001234202611220000000001",
    "out_refund_no": REFUND_NUMBER,
    "refund_id": "50200207182018070300011301001",
    "refund_status": "SUCCESS",
    "success_time": "2027-01-15T15:59:00+08:00",
    "user_received_account": "招商银行信用卡0403",
    "amount": {"total": 100, "refund": 100, "payer_total": 90, "payer_refund": 90},
}


@cache
def rsa_key(name: str) -> RSAPrivateKey:
    """One key per name and process: making them is slow."""
    assert name
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def private_pem(name: str) -> str:
    pem = rsa_key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def public_pem(name: str) -> str:
    return (
        rsa_key(name)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def certificate(name: str, serial: int, from_seconds: int, days: int = 1_825) -> x509.Certificate:
    """A platform certificate as WeChat Pay's own authority would write it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tenpay.com sign")])
    start = datetime.fromtimestamp(from_seconds, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(rsa_key(name).public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .sign(rsa_key(name), SHA256())
    )


def certificate_pem(name: str, serial: int, from_seconds: int = NOW_SECONDS - 86_400) -> bytes:
    return certificate(name, serial, from_seconds).public_bytes(Encoding.PEM)


def signature(name: str, timestamp: str, nonce: str, body: bytes) -> str:
    text = timestamp.encode() + b"\n" + nonce.encode() + b"\n" + body + b"\n"
    return base64.b64encode(rsa_key(name).sign(text, padding.PKCS1v15(), SHA256())).decode()


def signed_headers(  # one argument for each header that a forger may choose
    body: bytes,
    *,
    key: str = "platform",
    serial: str = PUBLIC_KEY_ID,
    timestamp: str | None = None,
    nonce: str = "5K8264ILTKCH16CQ2502SI8ZNMTM67VS",
) -> dict[str, str]:
    timestamp = str(NOW_SECONDS) if timestamp is None else timestamp
    return {
        "Wechatpay-Serial": serial,
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": signature(key, timestamp, nonce, body),
        "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
        "Request-ID": "08F78BA1",
    }


def seal(
    opened: bytes, associated: str | None, key: str = API_KEY, nonce: str = "fdasflkja484"
) -> dict[str, str]:
    """Encrypt as WeChat Pay does; `associated` None leaves the field out."""
    ciphertext = AESGCM(key.encode()).encrypt(nonce.encode(), opened, (associated or "").encode())
    sealed = {
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "nonce": nonce,
    }
    return sealed if associated is None else sealed | {"associated_data": associated}


def notification(  # noqa: PLR0913  one argument for each part that a forger may change
    resource: dict | bytes,
    *,
    event_type: str = "TRANSACTION.SUCCESS",
    original_type: str = "transaction",
    key: str = API_KEY,
    envelope: dict | None = None,
    sealed: dict | None = None,
) -> bytes:
    """The body of a callback; `envelope` and `sealed` change fields of either."""
    opened = resource if isinstance(resource, bytes) else json.dumps(resource).encode()
    document = {
        "id": "EV-2018022511223320873",
        "create_time": "2027-01-15T16:00:00+08:00",
        "resource_type": "encrypt-resource",
        "event_type": event_type,
        "summary": "支付成功",
        "resource": {
            "original_type": original_type,
            **seal(opened, original_type, key),
            **(sealed or {}),
        },
        **(envelope or {}),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def account(**changed: object) -> WechatpayAccount:
    """Our merchant account, in public-key mode."""
    fields = {
        "mchid": MCHID,
        "appid": APPID,
        "private_key": SigningKey(rsa_key("merchant")),
        "certificate_serial": "444F4864EA9B34415A1B2C3D4E5F60718293A4B5",
        "api_v3_keys": (SecretText(API_KEY.encode()), SecretText(OLD_API_KEY.encode())),
        "platform_public_key_id": PUBLIC_KEY_ID,
        "platform_public_key": VerifyingKey(rsa_key("platform").public_key()),
    }
    return WechatpayAccount(**(fields | changed))
