"""
What calls to one merchant account came to lately: its score, and its breaker.

Only technical results count: whether an account could be reached, answered in
time and may serve us. A shopper who does not pay, has no money, or sends something
that no account would take says nothing of it.

Source:
    docs/PAYMENTS.md §4.8; M. Nygard, Release It!, circuit breaker.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from app.payments.provider import Action, Outcome, Result
from app.payments.settings import RoutingSettings


class Verdict(StrEnum):
    """What one create call says of the account that it went to."""

    GOOD = "good"
    SLOW = "slow"  # it works, and shoppers wait
    REFUSED = "refused"  # signed: the account may not; the provider itself is well
    FAILED = "failed"  # not reached, or no answer that says anything
    SILENT = "silent"  # about the request or the shopper: says nothing of the account


def judge_result(result: Result[Action], took_ms: int, slow_ms_min: int) -> Verdict:
    """Say what a call's result means for the account's score and breaker."""
    match result.outcome:
        case Outcome.NOT_SENT:
            return Verdict.SILENT if result.concerns_request else Verdict.FAILED
        case Outcome.UNKNOWN:
            return Verdict.FAILED
        case Outcome.REJECTED:
            return Verdict.REFUSED if result.concerns_account else Verdict.SILENT
        case Outcome.CONFIRMED | Outcome.PENDING:
            return Verdict.SLOW if took_ms >= slow_ms_min else Verdict.GOOD


@dataclass(slots=True)
class Score:
    """The last results of one account for one product: a sliding window."""

    _results: deque[tuple[int, bool]] = field(default_factory=deque)  # (when, was it good)

    def note(self, verdict: Verdict, now_ms: int, settings: RoutingSettings) -> None:
        if verdict is Verdict.SILENT:
            return
        self._results.append((now_ms, verdict is Verdict.GOOD))
        if len(self._results) > settings.results_max:
            self._results.popleft()

    def failures(self, now_ms: int, settings: RoutingSettings) -> int:
        """Count bad results, 0..results_max; what is too old says nothing any more."""
        while self._results and self._results[0][0] <= now_ms - settings.results_ms_max:
            self._results.popleft()
        return sum(not good for _, good in self._results)


class BreakerState(StrEnum):
    """Whether an account may be called."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"  # one call is on its way to find out


@dataclass(slots=True)
class Breaker:
    """
    Keeps calls from one merchant account that fails.

    Opens after enough failures within a window. After a pause one call is let
    through; it closes the breaker or opens it again. A probe that never told how
    it went is given up after the same pause.
    """

    state: BreakerState = BreakerState.CLOSED
    _failed_at: deque[int] = field(default_factory=deque)
    _turned_at_ms: int = 0

    def is_shut(self, now_ms: int, settings: RoutingSettings) -> bool:
        """Whether a call would not be let through now."""
        if self.state is BreakerState.CLOSED:
            return False
        return now_ms < self._turned_at_ms + settings.breaker_open_ms

    def let_through(self, now_ms: int, settings: RoutingSettings) -> bool:
        """Ask for one call; who is told True must note how it went."""
        if self.is_shut(now_ms, settings):
            return False
        if self.state is not BreakerState.CLOSED:
            self._turn(BreakerState.HALF_OPEN, now_ms)
        return True

    def note(self, verdict: Verdict, now_ms: int, settings: RoutingSettings) -> None:
        """Take how a call went; a signed refusal comes from a provider that is well."""
        if verdict is not Verdict.FAILED:
            # A straggler from before it opened does not close it: only the probe does.
            if self.state is BreakerState.HALF_OPEN:
                self._failed_at.clear()
                self._turn(BreakerState.CLOSED, now_ms)
        elif self.state is BreakerState.HALF_OPEN:
            self._turn(BreakerState.OPEN, now_ms)
        elif self.state is BreakerState.CLOSED:
            self._count_failure(now_ms, settings)

    def _count_failure(self, now_ms: int, settings: RoutingSettings) -> None:
        self._failed_at.append(now_ms)
        while self._failed_at[0] <= now_ms - settings.breaker_window_ms:
            self._failed_at.popleft()
        if len(self._failed_at) >= settings.breaker_failures_max:
            self._turn(BreakerState.OPEN, now_ms)

    def _turn(self, state: BreakerState, now_ms: int) -> None:
        self.state = state
        self._turned_at_ms = now_ms
