"""What is said of routing's documents when they are wrong."""

import pytest
from prometheus_client import CollectorRegistry

from app.kernel.errors import BadConfiguration
from app.payments.provider import MerchantAccount
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.router import Router
from app.payments.settings import RoutingSettings
from app.payments.tally import PaymentTally
from app.settings import read_settings
from app.wiring.routing import open_routing
from tests.fakes import FixedClock

ACCOUNTS = "DOORBUSTER_PAYMENTS__ROUTING_ACCOUNTS"
RULES = "DOORBUSTER_PAYMENTS__ROUTING_RULES"
CLOCK = FixedClock(1_700_000_000_000)


def opened(settings: RoutingSettings) -> Router:
    provider = SandboxProvider(
        SandboxProviderSettings(
            url="http://127.0.0.1:9", callback_url="http://127.0.0.1:9/", keys={"k1": b"k" * 32}
        ),
        CLOCK,
    )
    assert isinstance(provider.account, MerchantAccount)
    return open_routing(settings, [provider], CLOCK, PaymentTally(CollectorRegistry()))


def test_sound_documents_come_from_the_environment(tmp_path):
    told = {
        ACCOUNTS: '[{"provider": "sandbox", "currencies": ["CNY"], "cost_bps": 60}]',
        RULES: '[{"provider": "sandbox", "accounts": [""], "merchant": "acme"}]',
    }
    settings = read_settings(told, tmp_path)
    assert isinstance(opened(settings.payments.routing), Router)


@pytest.mark.parametrize(
    ("accounts", "rules", "sentence"),
    [
        ([{}], [], f"{ACCOUNTS}[0].provider is missing"),
        ([{"provider": "sandbox", "fee": 1}], [], f"{ACCOUNTS}[0].fee is not a field"),
        ([{"provider": "sandbox", "cost_bps": 10_001}], [], f"{ACCOUNTS}[0].cost_bps"),
        ([{"provider": "sandbox", "currencies": ["yuan"]}], [], f"{ACCOUNTS}[0].currencies"),
        (
            [{"provider": "sandbox", "amount_minor_min": 2, "amount_minor_max": 1}],
            [],
            f"{ACCOUNTS}[0]: amount_minor_min is above amount_minor_max",
        ),
        (
            [{"provider": "sandbox", "cost_minor_min": 2, "cost_minor_max": 1}],
            [],
            f"{ACCOUNTS}[0]: cost_minor_min is above cost_minor_max",
        ),
        ([{"provider": "sandbox"}] * 2, [], f"{ACCOUNTS}: two documents are about one account"),
        (
            [{"provider": "sandbox", "account": "b"}],
            [],
            f"{ACCOUNTS}: account b of sandbox is not configured",
        ),
        (
            [],
            [{"provider": "alipay", "accounts": [""]}],
            f"{RULES}: the only account of alipay is not configured",
        ),
        ([], [{"provider": "sandbox", "accounts": []}], f"{RULES}[0].accounts"),
        (
            [],
            [{"provider": "sandbox", "accounts": ["", ""]}],
            f"{RULES}[0]: accounts names one twice",
        ),
    ],
)
def test_each_mistake_is_a_sentence(accounts, rules, sentence):
    with pytest.raises(BadConfiguration) as refused:
        opened(RoutingSettings(accounts=tuple(accounts), rules=tuple(rules)))
    assert sentence in str(refused.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(BadConfiguration) as refused:
        opened(RoutingSettings(accounts=({},), rules=({},)))
    told = str(refused.value)
    assert f"{ACCOUNTS}[0].provider is missing" in told
    assert f"{RULES}[0].accounts is missing" in told
