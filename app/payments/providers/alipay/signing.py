"""
What Alipay's RSA2 signs, and whom we take for Alipay; pure.

Three texts, each signed in RSA PKCS#1 v1.5 with SHA-256:

    request        all parameters but `sign`, without empty ones, sorted
    answer         the bytes of the answer's member, as received (`response.py`)
    notification   all fields but `sign` and `sign_type`, sorted

In key mode each of Alipay's keys that we were given may have signed. In
certificate mode an answer says which certificate did.

Source:
    docs/PAYMENTS.md §2.1, §2.2 and §2.4.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from app.payments.providers import rsa2
from app.payments.providers.forms import joined

SIGN_TYPE = "RSA2"

_RSA_SIGNATURES = "1.2.840.113549.1.1."  # the arc of the object ids of PKCS #1


@dataclass(frozen=True, slots=True, kw_only=True)
class AlipayKeys:
    """
    The public keys whose signatures are Alipay's: old and new ones live together.

    `by_serial` is filled in certificate mode, `plain` in key mode; a certificate
    that replaces another is added to a new object, never to this one.
    """

    plain: tuple[RSAPublicKey, ...] = field(default=(), repr=False)
    by_serial: Mapping[str, RSAPublicKey] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        assert self.plain or self.by_serial, "no key would mean that nothing is verified"

    def named(self, certificate_serial: str | None) -> Collection[RSAPublicKey]:
        """Return the keys that may have signed an answer; none for an unknown serial."""
        if certificate_serial is None or not self.by_serial:
            return self.all
        key = self.by_serial.get(certificate_serial)
        return () if key is None else (key,)

    @property
    def all(self) -> Collection[RSAPublicKey]:
        return (*self.plain, *self.by_serial.values())

    @property
    def newest_serial(self) -> str:
        """Return the serial of the certificate that was added last; certificate mode only."""
        *_, newest = self.by_serial
        return newest

    def with_certificate(self, serial: str, key: RSAPublicKey) -> "AlipayKeys":
        return AlipayKeys(plain=self.plain, by_serial={**self.by_serial, serial: key})


def request_text(parameters: Mapping[str, str]) -> str:
    """Write what a request signs; `sign_type` is part of it, empty values are not."""
    return joined({name: value for name, value in parameters.items() if value and name != "sign"})


def sign_request(key: RSAPrivateKey, parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters as they are sent: without empty ones, with `sign`."""
    sent = {name: value for name, value in parameters.items() if value}
    return {**sent, "sign": rsa2.sign(key, request_text(sent).encode())}


def notification_text(fields: Mapping[str, str]) -> str:
    """Write what a notification signs; empty values are part of it, as in the official check."""
    unsigned = {"sign", "sign_type"}
    return joined({name: value for name, value in fields.items() if name not in unsigned})


def is_signed_by(keys: Iterable[RSAPublicKey], text: bytes, signature: str) -> bool:
    """Whether one of these keys signed these bytes."""
    return any(rsa2.is_signed(key, text, signature) for key in keys)


def certificate_serial(certificate: x509.Certificate) -> str:
    """
    Return the serial number as Alipay counts it: MD5 of issuer and serial, 32 hex digits.

    The issuer is written most specific part first, without spaces.
    """
    named = f"{certificate.issuer.rfc4514_string()}{certificate.serial_number}"
    return hashlib.md5(named.encode(), usedforsecurity=False).hexdigest()


def root_serial(roots: Sequence[x509.Certificate]) -> str:
    """Join the serials of the root bundle's RSA-signed certificates; others do not count."""
    return "_".join(
        certificate_serial(root)
        for root in roots
        if root.signature_algorithm_oid.dotted_string.startswith(_RSA_SIGNATURES)
    )
