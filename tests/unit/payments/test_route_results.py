"""What counts for a score, and when a breaker opens and closes."""

import pytest

from app.payments.provider import Outcome, QrAction, Result
from app.payments.route_results import Breaker, BreakerState, Score, Verdict, judge_result
from app.payments.settings import RoutingSettings

SETTINGS = RoutingSettings(
    results_max=4,
    down_failures_min=2,
    results_ms_max=1_000,
    breaker_failures_max=3,
    breaker_window_ms=100,
    breaker_open_ms=500,
)
ACTION = QrAction("text", "page")


@pytest.mark.parametrize(
    ("result", "took_ms", "verdict"),
    [
        (Result(Outcome.CONFIRMED, ACTION), 2_499, Verdict.GOOD),
        (Result(Outcome.PENDING, ACTION), 2_499, Verdict.GOOD),
        (Result(Outcome.CONFIRMED, ACTION), 2_500, Verdict.SLOW),
        (Result(Outcome.UNKNOWN), 1, Verdict.FAILED),
        (Result(Outcome.NOT_SENT), 1, Verdict.FAILED),
        (Result(Outcome.NOT_SENT, code="no_payer", concerns_request=True), 1, Verdict.SILENT),
        (Result(Outcome.REJECTED, code="NO_AUTH", concerns_account=True), 1, Verdict.REFUSED),
        (Result(Outcome.REJECTED, code="NOT_ENOUGH"), 1, Verdict.SILENT),  # the shopper's own
        (Result(Outcome.REJECTED, code="too_low", lacks_funds=True), 1, Verdict.SILENT),
        (Result(Outcome.REJECTED, code="too_low", lacks_funds=True), 9_999, Verdict.SILENT),
    ],
)
def test_what_a_result_says_of_its_account(result, took_ms, verdict):
    assert judge_result(result, took_ms, 2_500) is verdict


def test_a_score_is_of_the_last_results_and_of_recent_ones():
    score = Score()
    for verdict in (Verdict.FAILED, Verdict.SLOW, Verdict.REFUSED, Verdict.GOOD, Verdict.GOOD):
        score.note(verdict, 0, SETTINGS)
    assert score.failures(999, SETTINGS) == 2  # the first of five has slid out
    assert score.failures(1_000, SETTINGS) == 0


def test_a_shoppers_own_declines_never_lower_a_score_nor_open_a_breaker():
    score, breaker = Score(), Breaker()
    for _ in range(100):
        score.note(Verdict.SILENT, 0, SETTINGS)
        breaker.note(Verdict.SILENT, 0, SETTINGS)
    assert score.failures(0, SETTINGS) == 0
    assert breaker.state is BreakerState.CLOSED


# Each row: when, what happens, what it answers (calls), the state after it.
LIVES = {
    "it opens after enough failures within the window": """
        0    FAILED   -    closed
        50   FAILED   -    closed
        99   FAILED   -    open
        598  call     no   open
        599  call     yes  half_open
    """,
    "failures too far apart do not add up": """
        0    FAILED   -    closed
        50   FAILED   -    closed
        100  FAILED   -    closed
        149  FAILED   -    open
    """,
    "one call probes and closes it": """
        0    FAILED   -    closed
        0    FAILED   -    closed
        0    FAILED   -    open
        500  call     yes  half_open
        501  call     no   half_open
        510  GOOD     -    closed
        511  call     yes  closed
        512  FAILED   -    closed
    """,
    "a probe that fails opens it again": """
        0    FAILED   -    closed
        0    FAILED   -    closed
        0    FAILED   -    open
        500  call     yes  half_open
        520  FAILED   -    open
        1019 call     no   open
        1020 call     yes  half_open
    """,
    "a probe that never told is given up": """
        0    FAILED   -    closed
        0    FAILED   -    closed
        0    FAILED   -    open
        500  call     yes  half_open
        999  call     no   half_open
        1000 call     yes  half_open
    """,
    "a signed refusal comes from a provider that is well": """
        0    FAILED   -    closed
        0    FAILED   -    closed
        0    FAILED   -    open
        1    GOOD     -    open
        500  call     yes  half_open
        510  REFUSED  -    closed
    """,
}


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_the_life_of_a_breaker(life: str):
    breaker = Breaker()
    for row in life.strip().splitlines():
        at, what, answer, state = row.split()
        now_ms = int(at)
        if what == "call":
            assert breaker.let_through(now_ms, SETTINGS) is (answer == "yes"), row
        else:
            breaker.note(Verdict[what], now_ms, SETTINGS)
        assert breaker.state == state, row
