"""
Open the payment providers of the settings, each under every merchant account.

A provider's package says what its account documents look like and opens one; this
table is all that is known of it here. A document that is wrong in any way stops
the start: every mistake of every account at once, by field, without its value.
"""

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from app.kernel.clock import Clock
from app.kernel.errors import BadConfiguration
from app.payments.provider import Provider
from app.payments.providers.alipay.provider import open_provider as open_alipay
from app.payments.providers.alipay.settings import AlipayAccount
from app.payments.providers.http import ProviderCalls
from app.payments.providers.keys import read_account
from app.payments.providers.unionpay.provider import open_provider as open_unionpay
from app.payments.providers.unionpay.settings import UnionpayAccount
from app.payments.providers.wechatpay.provider import open_provider as open_wechatpay
from app.payments.providers.wechatpay.settings import WechatpayAccount
from app.settings import PREFIX, PaymentsSettings

CALLBACK_SETTING: Final = f"{PREFIX}PAYMENTS__CALLBACK_URL"


@dataclass(frozen=True, slots=True)
class _Package:
    """One provider's package: the document of an account, and how it is opened."""

    code: str  # in routes and rows, and the field of PaymentsSettings
    document: type[msgspec.Struct]
    open: Callable[[Any, ProviderCalls, Clock, str], Provider]

    @property
    def setting(self) -> str:
        return f"{PREFIX}PAYMENTS__{self.code.upper()}"


_NAME: Final = re.compile(r"[a-z0-9-]{0,32}", re.ASCII)
_PACKAGES: Final = (
    _Package("wechatpay", WechatpayAccount, open_wechatpay),
    _Package("alipay", AlipayAccount, open_alipay),
    _Package("unionpay", UnionpayAccount, open_unionpay),
)


@contextlib.asynccontextmanager
async def open_providers(
    settings: PaymentsSettings, clock: Clock
) -> AsyncGenerator[list[Provider]]:
    """
    Open every account document's provider; they are closed at the end.

    Raises:
        BadConfiguration: an account document is wrong; all mistakes at once.
    """
    accounts = read_accounts(settings)
    async with contextlib.AsyncExitStack() as opened:
        providers: list[Provider] = []
        calls = await opened.enter_async_context(ProviderCalls())
        for package, account in accounts:
            url = callback_url(settings, package.code, name_of(account))
            provider = package.open(account, calls, clock, url)
            if isinstance(provider, contextlib.AbstractAsyncContextManager):
                await opened.enter_async_context(provider)  # it has work in the background
            providers.append(provider)
        yield providers


def read_accounts(settings: PaymentsSettings) -> list[tuple[_Package, msgspec.Struct]]:
    """
    Read every account document of the settings, with its keys.

    Raises:
        BadConfiguration: a document is wrong, two accounts of a provider have one
            name, or nobody said where callbacks reach us.
    """
    mistakes: list[str] = []
    accounts: list[tuple[_Package, msgspec.Struct]] = []
    for package in _PACKAGES:
        documents: Sequence[Mapping[str, object]] = getattr(settings, package.code)
        read = list(_read_all(package, documents, mistakes))
        mistakes += _name_mistakes(package, read)
        accounts += [(package, account) for account in read]
        if documents and not settings.callback_url:
            mistakes.append(f"{CALLBACK_SETTING} is not set, and {package.setting} needs it")
    if mistakes:
        raise BadConfiguration(settings="; ".join(mistakes))
    return accounts


def _read_all(
    package: _Package, documents: Sequence[Mapping[str, object]], mistakes: list[str]
) -> Iterator[msgspec.Struct]:
    for index, document in enumerate(documents):
        name = document.get("name")
        is_sound = isinstance(name, str) and name and _NAME.fullmatch(name)
        where = f"{package.setting}[{index}]{f' (account {name})' if is_sound else ''}"
        account = read_account(document, package.document, where, mistakes)
        if account is not None:
            yield account


def _name_mistakes(package: _Package, accounts: Sequence[msgspec.Struct]) -> Iterator[str]:
    """Names are part of callback URLs and of rows: short, plain, and each once."""
    names = [name_of(account) for account in accounts]
    if any(_NAME.fullmatch(name) is None for name in names):
        yield f"{package.setting}: a name is at most 32 of a-z, 0-9 and -"
    elif len(set(names)) < len(names):
        yield f"{package.setting}: two accounts have one name"


def name_of(account: msgspec.Struct) -> str:
    """Return our name of an account: in routes and rows, empty for an only one."""
    name = getattr(account, "name")  # noqa: B009  every document has it; Struct does not say so
    assert isinstance(name, str)
    return name


def callback_url(settings: PaymentsSettings, code: str, account: str) -> str:
    """Say where a provider tells us about payments under one account."""
    place = f"{code}/{account}" if account else code
    return f"{settings.callback_url.rstrip('/')}/{place}"
