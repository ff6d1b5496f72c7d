import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.clock import SystemClock, instant, unix_ms
from tests.fakes import FixedClock

DAWN_MS = 946_684_800_000  # 2000-01-01
DUSK_MS = 4_102_444_800_000  # 2100-01-01


@given(st.integers(DAWN_MS, DUSK_MS))
def test_milliseconds_survive_the_way_to_an_instant_and_back(moment_ms):
    assert unix_ms(instant(moment_ms)) == moment_ms


@given(
    moment_ms=st.integers(DAWN_MS, DUSK_MS),
    hours=st.integers(-12, 14),
)
def test_the_zone_of_an_instant_does_not_matter(moment_ms, hours):
    elsewhere = instant(moment_ms).astimezone(timezone(timedelta(hours=hours)))

    assert unix_ms(elsewhere) == moment_ms


def test_microseconds_round_down():
    assert unix_ms(datetime(2026, 11, 11, 0, 0, 0, 1_999, tzinfo=UTC)) % 1000 == 1


def test_a_naive_instant_is_a_bug():
    with pytest.raises(AssertionError, match="naive"):
        unix_ms(datetime(2026, 11, 11))  # noqa: DTZ001  the point of the test


def test_the_systems_clock_is_the_machines():
    earliest_ms = time.time_ns() // 1_000_000
    assert earliest_ms <= SystemClock().now_ms() <= time.time_ns() // 1_000_000


def test_the_fixed_clock_moves_only_when_told():
    clock = FixedClock(DAWN_MS)
    assert clock.now_ms() == clock.now_ms() == DAWN_MS

    clock.advance(1_500)

    assert clock.now_ms() == DAWN_MS + 1_500
