"""Groups: their table, their names and ids, and which of them together fill one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.ids import OrderKey
from app.orders.groups.group import (
    GROUP_MACHINE,
    GroupEvent,
    GroupKey,
    GroupState,
    Incomplete,
    Merge,
    group_name,
    opening_order,
    plan_merges,
)
from app.orders.groups.ids import group_of, read_group_id, write_group_id
from app.orders.sealing import OrderIds

IDS = OrderIds(b"0123456789abcdef")

# Every pair; `-` is refused.
PAIRS = """
          seats_paid given_up members_ended merged_away
  open    formed     failing  -             merged
  formed  -          -        -             -
  failing -          -        failed        -
  failed  -          -        -             -
  merged  -          -        -             -
"""

# seats of each group, oldest first (a, b, …) -> who joins whom
MERGES = """
  3  1,2      -> a<b
  3  2,1      -> a<b
  3  1,1      ->             # two of three would save nobody
  3  1,1,1    -> a<bc
  3  2,2,1    -> a<c
  3  2,1,1,2  -> a<b;c<d
  4  1,2,3    -> a<c         # the first that fits would leave a seat empty
  4  1,2,1    -> a<bc
  3  0,1,2    -> b<c         # nobody is in the first
  2  1,1,1    -> a<b
  5  2,1,1,2  -> a<bd        # older ones are preferred
  3           ->
"""


def test_every_pair_of_state_and_event_is_as_the_table_says():
    (*events,), *rows = [line.split() for line in PAIRS.strip().splitlines()]

    assert events == list(GroupEvent)
    assert [row[0] for row in rows] == list(GroupState)
    for state, *targets in rows:
        for event, target in zip(events, targets, strict=True):
            told = GROUP_MACHINE.moves.get((GroupState(state), GroupEvent(event)), "-")
            assert told == target, (state, event)


@pytest.mark.parametrize("line", MERGES.strip().splitlines())
def test_groups_that_fill_one_are_merged(line):
    left, _, right = line.partition("#")[0].partition("->")
    size, *seats = left.split()
    names = iter("abcdef")
    groups = [Incomplete(next(names), int(n)) for n in (seats[0].split(",") if seats else [])]
    expected = [Merge(one[0], tuple(one[2:])) for one in right.strip().split(";") if one]

    assert plan_merges(groups, int(size)) == expected


@given(st.integers(2, 12), st.lists(st.integers(0, 12), max_size=30))
def test_every_plan_fills_groups_exactly_and_uses_each_once(size, seats):
    groups = [Incomplete(str(i), min(n, size)) for i, n in enumerate(seats)]
    taken = {group.name: group.seats for group in groups}
    merges = plan_merges(groups, size)
    used = Counter(name for merge in merges for name in (merge.target, *merge.sources))

    assert all(count == 1 for count in used.values())
    for merge in merges:
        names = (merge.target, *merge.sources)
        assert sum(taken[name] for name in names) == size
        assert all(0 < taken[name] < size for name in names)
        ages = [int(name) for name in names]
        assert ages == sorted(ages)


def test_a_group_is_named_by_the_order_that_opens_it():
    order = OrderKey(5, 0, 4_095, 2**34 - 1)

    assert opening_order(5, 0, group_name(order.epoch, order.seq)) == order
    assert group_of(order) == GroupKey(5, 0, f"4095.{2**34 - 1}")


def test_a_group_id_reads_as_it_was_written():
    key = GroupKey(77, 3, "12.345678")
    text = write_group_id(IDS, key)

    assert text.startswith("grp_")
    assert len(text) == 30
    assert read_group_id(IDS, text) == key


WRITTEN = write_group_id(IDS, GroupKey(77, 0, "1.2"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "new",
        WRITTEN[4:],
        WRITTEN[:-1],
        WRITTEN + "0",
        WRITTEN.lower(),
        "grp_" + "0" * 26,
        WRITTEN[:10] + ("0" if WRITTEN[10] != "0" else "1") + WRITTEN[11:],
    ],
)
def test_an_invented_id_is_no_group(text):
    assert read_group_id(IDS, text) is None


def test_an_orders_id_is_no_group():
    order = IDS.write(OrderKey(77, 0, 1, 2), "ann")

    assert read_group_id(IDS, f"grp_{order}") is None
    assert write_group_id(IDS, GroupKey(77, 0, "1.2")) != f"grp_{order}"
