"""
The routing of a running process: the rules of the settings over what it has seen.

Results, breakers and quotas are kept per process and forgotten at its end: each api
process finds out for itself what is down, within a handful of calls, and nothing is
shared that could be wrong for all of them (decision 0027).
"""

from collections import defaultdict
from collections.abc import Sequence

from app.kernel.clock import Clock
from app.payments.provider import Action, Product, Provider, Result
from app.payments.route_results import Breaker, BreakerState, Score, Verdict, judge_result
from app.payments.route_rules import Candidate, RouteRule, RouteTerms, rank_routes
from app.payments.routing import RouteWish
from app.payments.settings import RoutingSettings
from app.payments.tally import PaymentTally

_MINUTE_MS = 60_000
_DAY_MS = 86_400_000


class Router:
    """Chooses routes by rules, results and cost; see app.payments.routing.Routing."""

    def __init__(
        self,
        settings: RoutingSettings,
        terms: Sequence[RouteTerms],
        rules: Sequence[RouteRule],
        clock: Clock,
        tally: PaymentTally,
    ) -> None:
        self._settings = settings
        self._terms = {(one.provider, one.account): one for one in terms}
        self._rules = rules
        self._clock = clock
        self._tally = tally
        self._breakers: defaultdict[tuple[str, str], Breaker] = defaultdict(Breaker)
        self._scores: defaultdict[tuple[str, str, Product], Score] = defaultdict(Score)
        self._spent: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._spent_day = self._day()

    def choose(self, accounts: Sequence[Provider], wish: RouteWish) -> list[Provider]:
        by_name = {route.account.name: route for route in accounts}
        candidates = [self._candidate(route, wish.product) for route in accounts]
        ranked = rank_routes(candidates, wish, self._rules, self._settings.explore_percent)
        return [by_name[name] for name in ranked]

    def may_call(self, route: Provider) -> bool:
        """Ask for one call; False when its breaker is open: the call counts as not sent."""
        key = (route.code, route.account.name)
        breaker = self._breakers[key]
        before = breaker.state
        may = breaker.let_through(self._clock.now_ms(), self._settings)
        self._tell(key, before, breaker.state)
        return may

    def note(self, route: Provider, product: Product, result: Result[Action], took_ms: int) -> None:
        """Learn from how a call went."""
        now_ms = self._clock.now_ms()
        key = (route.code, route.account.name)
        verdict = judge_result(result, took_ms, self._settings.slow_ms_min)
        self._scores[*key, product].note(verdict, now_ms, self._settings)
        breaker = self._breakers[key]
        before = breaker.state
        breaker.note(verdict, now_ms, self._settings)
        self._tell(key, before, breaker.state)
        if verdict is Verdict.FAILED:
            self._tally.count_call_failure(*key)

    def note_opened(self, route: Provider, amount_minor: int) -> None:
        """Count a payment against the account's quota of the day."""
        self._begin_day()
        self._spent[route.code, route.account.name] += amount_minor

    def _candidate(self, route: Provider, product: Product) -> Candidate:
        key = (route.code, route.account.name)
        now_ms = self._clock.now_ms()
        failures = self._scores[*key, product].failures(now_ms, self._settings)
        self._begin_day()
        return Candidate(
            account=route.account.name,
            products=route.products,
            terms=self._terms.get(key) or RouteTerms(provider=key[0], account=key[1]),
            is_shut=self._breakers[key].is_shut(now_ms, self._settings),
            spent_minor=self._spent[key],
            failures=failures,
            is_down=failures >= self._settings.down_failures_min,
        )

    def _tell(self, key: tuple[str, str], before: BreakerState, after: BreakerState) -> None:
        if before is not after:
            self._tally.count_breaker(*key, after)

    def _begin_day(self) -> None:
        if self._spent_day != self._day():
            self._spent.clear()
            self._spent_day = self._day()

    def _day(self) -> int:
        offset_ms = self._settings.day_offset_minutes * _MINUTE_MS
        return (self._clock.now_ms() + offset_ms) // _DAY_MS
