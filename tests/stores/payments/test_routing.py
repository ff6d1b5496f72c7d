"""Payments led by what calls came to: breaker, quota, rules, on real rows."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.kernel.errors import ProviderUnavailable
from app.payments.intent import AttemptState
from app.payments.provider import MerchantAccount, Outcome, Result
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.payments.route_rules import RouteRule, RouteTerms
from app.payments.router import Router
from app.payments.settings import RoutingSettings
from app.payments.stage import PaymentStage, Providers
from app.payments.start import Started, start_payment
from tests.stores.payments.desk import CALLBACK_PATH, KEYS, PRICE_MINOR, Desk

SETTINGS = RoutingSettings(
    explore_percent=0, breaker_failures_max=2, breaker_open_ms=1_000, down_failures_min=30
)
FIRST = (RouteRule(provider="sandbox", accounts=("other", "")),)


class Scripted:
    """The real provider under another account; what create calls come to is told."""

    code = "sandbox"

    def __init__(self, real: SandboxProvider, result: Result) -> None:
        self._real = real
        self.account = MerchantAccount("other", "another-merchant", "another-app")
        self.result: Result | None = result
        self.calls = 0

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    async def create(self, charge) -> Result:
        self.calls += 1
        return self.result or await self._real.create(charge)


def routed(
    desk: Desk,
    routes: Sequence,
    *,
    terms: Sequence[RouteTerms] = (),
    rules: Sequence[RouteRule] = FIRST,
) -> PaymentStage:
    router = Router(SETTINGS, terms, rules, desk.clock, desk.stage.tally)
    return replace(desk.stage, providers=Providers(routes), routing=router)


async def account_of_next(desk: Desk, stage: PaymentStage) -> str:
    started = await start_payment(stage, desk.wish(await desk.place()))
    assert isinstance(started, Started)
    return (await desk.attempt(started.payment.payment_id)).account


async def test_an_open_breaker_keeps_calls_away_until_one_probe_succeeds(desk: Desk):
    away = Scripted(desk.provider, Result(Outcome.NOT_SENT))
    stage = routed(desk, [away, desk.provider])
    assert [await account_of_next(desk, stage) for _ in range(3)] == ["", "", ""]
    assert away.calls == 2  # the third payment found it open

    desk.clock.advance(1_000)
    away.result = None
    assert [await account_of_next(desk, stage) for _ in range(2)] == ["other", "other"]
    turns = [
        desk.metrics.get_sample_value(
            "doorbuster_payment_breaker_turns_total",
            {"provider": "sandbox", "account": "other", "state": state},
        )
        for state in ("open", "half_open", "closed")
    ]
    assert turns == [1, 1, 1]


async def test_when_every_breaker_is_open_nothing_is_called_or_written(desk: Desk):
    away = Scripted(desk.provider, Result(Outcome.NOT_SENT))
    stage = routed(desk, [away], rules=())
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            await start_payment(stage, desk.wish(await desk.place()))
    assert away.calls == 2
    assert len(await desk.rows("SELECT 1 FROM payment_attempts")) == 2


async def test_each_route_that_is_tried_has_an_attempt_of_its_own(desk: Desk):
    declined = Scripted(desk.provider, Result(Outcome.REJECTED, concerns_account=True))
    key = await desk.place()
    started = await start_payment(routed(desk, [declined, desk.provider]), desk.wish(key))
    assert isinstance(started, Started)
    rows = await desk.rows("SELECT ordinal, account, state FROM payment_attempts ORDER BY ordinal")
    assert [tuple(row.values()) for row in rows] == [
        (1, "other", AttemptState.CLOSED),
        (2, "", AttemptState.OPEN),
    ]


async def test_unknown_is_never_left_even_when_it_opens_the_breaker(desk: Desk):
    silent = Scripted(desk.provider, Result(Outcome.UNKNOWN))
    stage = routed(desk, [silent, desk.provider])
    for _ in range(2):
        started = await start_payment(stage, desk.wish(await desk.place()))
        assert isinstance(started, Started)
        assert started.payment.status == "unknown"
    rows = await desk.rows("SELECT account, state FROM payment_attempts")
    assert {(row["account"], row["state"]) for row in rows} == {("other", "created")}
    assert silent.calls == 4  # each repeated once, with its number
    assert await account_of_next(desk, stage) == ""


async def test_a_rule_for_a_sale_leads_and_a_quota_ends(desk: Desk):
    async with SandboxProvider(
        SandboxProviderSettings(
            url=desk.gateway_url,
            callback_url=f"{desk.url}{CALLBACK_PATH}/other",
            keys=KEYS,
            account="other",
        ),
        desk.clock,
    ) as other:
        stage = routed(
            desk,
            [desk.provider, other],
            terms=[RouteTerms(provider="sandbox", account="other", daily_minor_max=PRICE_MINOR)],
            rules=[RouteRule(provider="sandbox", accounts=("other",), sale="spring")],
        )
        assert [await account_of_next(desk, stage) for _ in range(2)] == ["other", ""]
        desk.clock.advance(86_400_000)  # a quota is of one day
        assert await account_of_next(desk, stage) == "other"
