"""Which bucket gets how many units, and from whom they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.inventory.shares import even_shares, level_shares, withdrawal_of

# units to give, what each bucket has -> what each has then
LEVEL = """
  0     0 0 0 9      0 0 0 9
  1     0 0 0 9      1 0 0 9
  3     0 0 0 9      1 1 1 9
  4     0 0 0 9      2 1 1 9
  50    0 0 0 50     17 17 16 50
  5     7            12
  5     1 4          5 5
  2     1 4          3 4
  100   0 200        100 200
  301   0 200        251 250
"""

# what each bucket has -> what is taken, from which
WITHDRAW = """
  5 5 5 5        -
  0 5 5 5        2 from 1
  0 0 0 0        -
  0 1 1 0        -
  0 2 1 0        1 from 1
  0 3 9 9        4 from 2
  100            -
  0              -
  0 100 0 0      50 from 1
"""


def rows(table: str) -> list[list[str]]:
    cells = (line.split("  ") for line in table.strip().splitlines())
    return [[cell.strip() for cell in row if cell.strip()] for row in cells]


def units_of(cell: str) -> dict[int, int]:
    return dict(enumerate(map(int, cell.split())))


@given(units=st.integers(0, 10_000_000), buckets=st.integers(1, 64))
def test_shares_are_even_and_lose_nothing(units, buckets):
    shares = even_shares(units, buckets)

    assert len(shares) == buckets
    assert sum(shares) == units
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(("units", "before", "after"), rows(LEVEL))
def test_the_poorest_are_filled_first(units, before, after):
    had = units_of(before)
    shares = level_shares(int(units), had)
    assert {bucket: had[bucket] + shares.get(bucket, 0) for bucket in had} == units_of(after)


@given(
    units=st.integers(0, 10_000),
    remaining=st.dictionaries(st.integers(0, 255), st.integers(0, 1_000), min_size=1),
)
def test_levelling_loses_nothing_takes_nothing_and_leaves_no_poorer_one_behind(units, remaining):
    shares = level_shares(units, remaining)

    assert sum(shares.values()) == units
    assert all(share > 0 for share in shares.values())
    then = {bucket: has + shares.get(bucket, 0) for bucket, has in remaining.items()}
    for bucket in shares:
        assert then[bucket] - min(then.values()) <= 1


@pytest.mark.parametrize(("remaining", "taken"), rows(WITHDRAW))
def test_half_of_the_richest_is_taken_when_another_has_nothing(remaining, taken):
    wanted = withdrawal_of(units_of(remaining))
    assert taken == ("-" if wanted is None else f"{wanted.units} from {wanted.bucket}")


def test_nothing_is_taken_where_nobody_sells():
    assert withdrawal_of({}) is None


@given(st.dictionaries(st.integers(0, 63), st.integers(0, 10_000), min_size=2))
def test_units_that_nobody_buys_come_to_rest(remaining):
    """Withdrawn and granted anew again and again, they settle; they never go round."""
    has = dict(remaining)
    for _ in range(2 * len(has) + 20):
        wanted = withdrawal_of(has)
        if wanted is None:
            break
        has[wanted.bucket] -= wanted.units
        for bucket, share in level_shares(wanted.units, has).items():
            has[bucket] += share
    assert withdrawal_of(has) is None
    assert sum(has.values()) == sum(remaining.values())
