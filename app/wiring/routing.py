"""
Open the routing of payments: the documents of the settings over the open accounts.

Every mistake of every document stops the start at once, by field; a document that
names an account nobody opened is a mistake, for its rule would never apply.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from app.kernel.clock import Clock
from app.kernel.errors import BadConfiguration
from app.payments.provider import Provider
from app.payments.providers.keys import read_account
from app.payments.route_rules import RouteRule, RouteTerms
from app.payments.router import Router
from app.payments.settings import RoutingSettings
from app.payments.tally import PaymentTally
from app.settings import PREFIX

ACCOUNTS_SETTING: Final = f"{PREFIX}PAYMENTS__ROUTING_ACCOUNTS"
RULES_SETTING: Final = f"{PREFIX}PAYMENTS__ROUTING_RULES"

Document = TypeVar("Document", bound=msgspec.Struct)


def open_routing(
    settings: RoutingSettings, providers: Sequence[Provider], clock: Clock, tally: PaymentTally
) -> Router:
    """
    Put the routing of one process together.

    Raises:
        BadConfiguration: a document is wrong or names what is not open; all
            mistakes at once.
    """
    mistakes: list[str] = []
    terms = _read(settings.accounts, RouteTerms, ACCOUNTS_SETTING, mistakes)
    rules = _read(settings.rules, RouteRule, RULES_SETTING, mistakes)
    opened = {(provider.code, provider.account.name) for provider in providers}
    mistakes += _name_mistakes(terms, rules, opened)
    if mistakes:
        raise BadConfiguration(settings="; ".join(mistakes))
    return Router(settings, terms, rules, clock, tally)


def _read(
    documents: Sequence[Mapping[str, object]],
    type_: type[Document],
    setting: str,
    mistakes: list[str],
) -> list[Document]:
    read = (
        read_account(document, type_, f"{setting}[{index}]", mistakes)
        for index, document in enumerate(documents)
    )
    return [one for one in read if one is not None]


def _name_mistakes(
    terms: Sequence[RouteTerms], rules: Sequence[RouteRule], opened: set[tuple[str, str]]
) -> Iterator[str]:
    told = [(one.provider, one.account) for one in terms]
    if len(set(told)) < len(told):
        yield f"{ACCOUNTS_SETTING}: two documents are about one account"
    for name in sorted(set(told) - opened):
        yield f"{ACCOUNTS_SETTING}: {_spell(name)} is not configured"
    ruled = {(rule.provider, account) for rule in rules for account in rule.accounts}
    for name in sorted(ruled - opened):
        yield f"{RULES_SETTING}: {_spell(name)} is not configured"


def _spell(name: tuple[str, str]) -> str:
    provider, account = name
    return f"account {account} of {provider}" if account else f"the only account of {provider}"
