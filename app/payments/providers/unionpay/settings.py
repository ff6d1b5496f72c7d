"""
One merchant account at UnionPay: the document an operator writes, and what follows from it.

Source:
    docs/PAYMENTS.md §3.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from app.payments.provider import MerchantAccount
from app.payments.providers.chains import rsa_key
from app.payments.providers.http import url_mistake
from app.payments.providers.keys import CertificateText, SigningKey
from app.payments.providers.unionpay.signing import Trust

GATEWAY_URL: Final = "https://gateway.95516.com/gateway/api"
COMPANY_NAME: Final = "中国银联股份有限公司"  # in production; the test gateway's is 00040000:SIGN

MerchantId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{15}\Z")]
Url: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,200}\Z")]


class UnionpayAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Who we are at UnionPay, where it is, and whose certificates are UnionPay's.

    A message brings its own certificate; it must chain to one of `roots`, by way
    of `authorities`, and name one of `company_names`. Several of each may live
    together.
    """

    merchant_id: MerchantId
    private_key: SigningKey
    certificate: CertificateText  # of `private_key`; its serial is our certId
    roots: tuple[CertificateText, ...]
    authorities: tuple[CertificateText, ...] = ()
    company_names: tuple[str, ...] = (COMPANY_NAME,)
    name: str = ""  # ours, in routes and rows
    gateway_url: Url = GATEWAY_URL  # without the name of a service

    def __post_init__(self) -> None:
        """
        Check what no field can tell alone.

        Raises:
            ValueError: one sentence, which names the field.
        """
        if mistake := url_mistake(self.gateway_url):
            message = f"gateway_url: {mistake}"
            raise ValueError(message)
        if not self.roots:
            message = "roots: no certificate is set, and nothing could be verified"
            raise ValueError(message)
        if not self.company_names or not all(self.company_names):
            message = "company_names: none is set, or one is empty and would be anybody's"
            raise ValueError(message)
        credentials_of(self)

    def merchant_account(self) -> MerchantAccount:
        return MerchantAccount(self.name, self.merchant_id, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Our key, the serial it is known by, and whom we trust."""

    private_key: RSAPrivateKey = field(repr=False)
    certificate_id: str
    trust: Trust


def credentials_of(account: UnionpayAccount) -> Credentials:
    """
    Put an account's keys together.

    Raises:
        ValueError: one sentence, which names the field.
    """
    certificate = account.certificate.first
    try:
        private_key = account.private_key.rsa
        key = rsa_key(certificate)
    except ValueError as error:
        message = f"private_key, certificate: {error}"
        raise ValueError(message) from error
    if key.public_numbers() != private_key.public_key().public_numbers():
        message = "certificate: it is not of private_key"
        raise ValueError(message)
    return Credentials(
        private_key=private_key,
        certificate_id=str(certificate.serial_number),
        trust=Trust(
            roots=[one for text in account.roots for one in text.chain],
            authorities=[one for text in account.authorities for one in text.chain],
            names=account.company_names,
        ),
    )
