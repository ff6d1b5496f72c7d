"""
One merchant account at Alipay: the document an operator writes, and what follows from it.

There are two ways to be known, one per app. In key mode each side was told the
other's public key. In certificate mode each request names our certificate and
Alipay's root by their serials, and answers name Alipay's certificate. Sending
money out needs certificate mode.

Source:
    docs/PAYMENTS.md §2.1 and §2.2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from app.payments.provider import MerchantAccount
from app.payments.providers.alipay.signing import AlipayKeys, certificate_serial, root_serial
from app.payments.providers.chains import rsa_key
from app.payments.providers.http import origin_of, url_mistake
from app.payments.providers.keys import CertificateText, SigningKey, VerifyingKey

GATEWAY_URL: Final = "https://openapi.alipay.com/gateway.do"
BILL_HOST: Final = ".alipay.com"  # where the links to bills lead

AppId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{1,32}\Z")]
SellerId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{1,32}\Z")]
Url: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,200}\Z")]


Loaded = TypeVar("Loaded")


class AlipayAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Who we are at Alipay, and where it is.

    Either `alipay_public_keys` is set (key mode), or the three certificates are:
    all of several keys or certificates verify, so an old and a new one live
    together.
    """

    app_id: AppId
    seller_id: SellerId  # our PID, 2088…
    private_key: SigningKey  # of the app
    name: str = ""  # ours, in routes and rows
    alipay_public_keys: tuple[VerifyingKey, ...] = ()
    app_certificate: CertificateText | None = None  # of `private_key`
    alipay_certificates: tuple[CertificateText, ...] = ()
    alipay_root_certificate: CertificateText | None = None  # the whole bundle
    gateway_url: Url = GATEWAY_URL
    bill_hosts: tuple[str, ...] = (BILL_HOST,)  # besides the gateway's own origin
    certificate_refresh_pause_ms: int = 60_000  # between two downloads of unknown certificates

    def __post_init__(self) -> None:
        """
        Check what no field can tell alone.

        Raises:
            ValueError: one sentence, which names the field.
        """
        if mistake := url_mistake(self.gateway_url):
            raise ValueError(_sentence("gateway_url", mistake))
        if self.certificate_refresh_pause_ms < 1_000:
            raise ValueError(_sentence("certificate_refresh_pause_ms", "it is below 1000"))
        credentials_of(self)

    def merchant_account(self) -> MerchantAccount:
        return MerchantAccount(self.name, self.seller_id, self.app_id)

    @property
    def gateway_origin(self) -> str:
        return origin_of(self.gateway_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The keys of one account, and the serials that certificate mode adds to each request."""

    private_key: RSAPrivateKey = field(repr=False)
    keys: AlipayKeys = field(repr=False)
    request_serials: Mapping[str, str] = field(default_factory=dict)  # empty in key mode
    certificates: Sequence[x509.Certificate] = ()  # Alipay's own that we were given
    authorities: Sequence[x509.Certificate] = ()  # that came with them
    roots: Sequence[x509.Certificate] = ()


def credentials_of(account: AlipayAccount) -> Credentials:
    """
    Put an account's keys together.

    Raises:
        ValueError: keys and certificates contradict each other, or are missing.
    """
    private_key = _named("private_key", lambda: account.private_key.rsa)
    root, app_certificate = account.alipay_root_certificate, account.app_certificate
    if root is None and app_certificate is None and not account.alipay_certificates:
        return Credentials(private_key=private_key, keys=_plain_keys(account))
    if root is None or app_certificate is None or not account.alipay_certificates:
        raise ValueError(
            _sentence(
                "app_certificate, alipay_certificates, alipay_root_certificate",
                "certificate mode needs all three",
            )
        )
    if account.alipay_public_keys:
        raise ValueError(
            _sentence("alipay_public_keys", "an app has keys or certificates, not both")
        )
    _check_pair(app_certificate.first, private_key)
    return Credentials(
        private_key=private_key,
        keys=_keys_by_serial(account.alipay_certificates),
        request_serials={
            "app_cert_sn": certificate_serial(app_certificate.first),
            "alipay_root_cert_sn": _root_serial(root),
        },
        certificates=[one.first for one in account.alipay_certificates],
        authorities=[
            authority
            for one in (*account.alipay_certificates, app_certificate)
            for authority in one.chain[1:]
        ],
        roots=root.chain,
    )


def _plain_keys(account: AlipayAccount) -> AlipayKeys:
    if not account.alipay_public_keys:
        raise ValueError(
            _sentence("alipay_public_keys", "neither Alipay's key nor its certificates are set")
        )
    keys = account.alipay_public_keys
    return AlipayKeys(plain=_named("alipay_public_keys", lambda: tuple(key.rsa for key in keys)))


def _keys_by_serial(certificates: Sequence[CertificateText]) -> AlipayKeys:
    by_serial = _named(
        "alipay_certificates",
        lambda: {certificate_serial(one.first): rsa_key(one.first) for one in certificates},
    )
    return AlipayKeys(by_serial=by_serial)


def _check_pair(certificate: x509.Certificate, private_key: RSAPrivateKey) -> None:
    key = _named("app_certificate", lambda: rsa_key(certificate))
    if key.public_numbers() != private_key.public_key().public_numbers():
        raise ValueError(_sentence("app_certificate", "it is not of private_key"))


def _root_serial(root: CertificateText) -> str:
    serial = root_serial(root.chain)
    if not serial:
        raise ValueError(
            _sentence("alipay_root_certificate", "none of its certificates is RSA-signed")
        )
    return serial


def _named(setting: str, load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    except ValueError as error:
        raise ValueError(_sentence(setting, str(error))) from error


def _sentence(setting: str, why: str) -> str:
    return f"{setting}: {why}"
