"""
One merchant account at WeChat Pay: the document an operator writes.

Its keys are loaded while it is read (`providers.keys`), and what is missing,
malformed or contradictory is told as a sentence that names the field. No key, no
start: an empty key would mean that nothing is verified.

Source:
    docs/PAYMENTS.md §1.1 and §1.4.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from app.payments.provider import MerchantAccount, Product
from app.payments.providers.http import url_mistake
from app.payments.providers.keys import SecretText, SigningKey, VerifyingKey
from app.payments.providers.wechatpay.signing import Merchant

API_KEY_BYTES: Final = 32

# Where WeChat Pay keeps the files of bills, whichever host it was asked on.
WECHATPAY_HOSTS: Final = frozenset(
    {
        "api.mch.weixin.qq.com",
        "api2.mch.weixin.qq.com",
        "api.wechatpay.cn",
        "api2.wechatpay.cn",
    }
)

# In which product a payment was made, by the trade type that messages tell.
PRODUCT_OF_TRADE_TYPE: Final[Mapping[str, Product]] = {
    "NATIVE": Product.NATIVE,
    "JSAPI": Product.JSAPI,
    "MWEB": Product.H5,
    "APP": Product.APP,
}
PRODUCTS: Final = frozenset(
    {Product.NATIVE, Product.QR, Product.JSAPI, Product.H5, Product.APP},
)

AccountName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{0,32}\Z")]
Mchid: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{8,32}\Z")]
AppId: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{1,32}\Z")]
Serial: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{8,40}\Z")]
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]

_PUBLIC_KEY_ID: Final = re.compile(r"PUB_KEY_ID_[0-9A-Za-z]{1,64}", re.ASCII)


class TransferWay(StrEnum):
    """Which of the two interfaces for paying persons a merchant was given."""

    SINGLE = "single"  # since 2025; the payee accepts it in the wallet
    BATCH = "batch"  # merchants who had it before


class SceneReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a transfer scene wants to be told of each transfer: a title and a text."""

    info_type: str
    info_content: str


class WechatpayAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Who we are at WeChat Pay, and where it is.

    Answers and notifications are checked with the platform's public key, with
    platform certificates that are downloaded, or with both: while a merchant
    moves from one to the other, both kinds arrive.

    Raises:
        ValueError: two fields contradict each other; says which.
    """

    mchid: Mchid
    appid: AppId
    private_key: SigningKey  # of the merchant's API certificate
    certificate_serial: Serial  # of that certificate
    api_v3_keys: tuple[SecretText, ...]  # the one in force, then the one before it
    name: AccountName = ""  # ours, in routes and rows
    appids: Mapping[Product, AppId] = {}  # where a product is bound to another app
    platform_public_key_id: str = ""  # PUB_KEY_ID_…
    platform_public_key: VerifyingKey | None = None
    platform_certificates: bool = False  # download them, besides or instead of the key
    base_url: str = "https://api.mch.weixin.qq.com"
    backup_url: str = "https://api2.mch.weixin.qq.com"  # tried once after a network error
    transfer_way: TransferWay = TransferWay.SINGLE
    transfer_scene_id: str = ""  # as granted to the merchant; empty: no transfers
    transfer_scene_reports: tuple[SceneReport, ...] = ()
    # On each of the two hosts: two calls, which is what a lost create call comes
    # to, must be over within the 12 s after which it is made again.
    answer_timeout_ms: Milliseconds = 2_500
    certificate_refresh_ms: Annotated[int, msgspec.Meta(ge=60_000)] = 3_600_000  # 12 h at most

    def __post_init__(self) -> None:
        for mistake in self._mistakes():
            raise ValueError(mistake)

    def __repr__(self) -> str:
        return f"WechatpayAccount(name={self.name!r}, mchid={self.mchid!r}, appid={self.appid!r})"

    @property
    def merchant(self) -> Merchant:
        """Who signs our requests."""
        return Merchant(self.mchid, self.certificate_serial.upper(), self.private_key.rsa)

    @property
    def api_keys(self) -> tuple[bytes, ...]:
        """The API v3 keys: 1..n of 32 bytes, the one in force first."""
        return tuple(key.secret for key in self.api_v3_keys)

    @property
    def platform_keys(self) -> Mapping[str, RSAPublicKey]:
        """WeChat Pay's public key by its id; empty where only certificates are used."""
        if self.platform_public_key is None:
            return {}
        return {self.platform_public_key_id: self.platform_public_key.rsa}

    def merchant_account(self) -> MerchantAccount:
        return MerchantAccount(self.name, self.mchid, self.appid)

    def appid_of(self, product: Product) -> str:
        """Return the app that a product's payments are opened under."""
        return self.appids.get(product, self.appid)

    def told_app(self, trade_type: str, appid: str) -> str:
        """
        Return our account's app id for a message that names the right app.

        A product may be bound to an app of its own; the account is one all the
        same. For any other app it returns none at all, which is refused where
        accounts are compared.
        """
        product = PRODUCT_OF_TRADE_TYPE.get(trade_type)
        # An unpaid payment has no trade type yet: any app of ours may be its.
        every = {self.appid, *self.appids.values()}
        ours = every if product is None else {self.appid_of(product)}
        return self.appid if appid in ours else ""

    def _mistakes(self) -> list[str]:
        """Say which fields cannot be as they are; no value is told."""
        wrong = {
            "private_key: it is not an RSA key": not isinstance(
                self.private_key.key, RSAPrivateKey
            ),
            "api_v3_keys: no key is set": not self.api_v3_keys,
            f"api_v3_keys: a key is not {API_KEY_BYTES} bytes long": any(
                len(key.secret) != API_KEY_BYTES for key in self.api_v3_keys
            ),
            "appids: WeChat Pay has no such product": bool(set(self.appids) - PRODUCTS),
            **self._platform_mistakes(),
            **self._address_mistakes(),
        }
        return [sentence for sentence, is_so in wrong.items() if is_so]

    def _platform_mistakes(self) -> dict[str, bool]:
        key, key_id = self.platform_public_key, self.platform_public_key_id
        return {
            "platform_public_key: neither it nor platform_certificates is set": (
                key is None and not self.platform_certificates
            ),
            "platform_public_key: it is not an RSA key": (
                key is not None and not isinstance(key.key, RSAPublicKey)
            ),
            "platform_public_key: platform_public_key_id is set without it": (
                key is None and bool(key_id)
            ),
            "platform_public_key_id: it does not read PUB_KEY_ID_…": (
                key is not None and _PUBLIC_KEY_ID.fullmatch(key_id) is None
            ),
        }

    def _address_mistakes(self) -> dict[str, bool]:
        mistakes = {}
        for name, url in (("base_url", self.base_url), ("backup_url", self.backup_url)):
            if name == "backup_url" and not url:
                continue
            mistake = url_mistake(url)
            mistakes[f"{name}: {mistake}"] = mistake is not None
            mistakes[f"{name}: it ends with a slash"] = url.endswith("/")
        return mistakes
