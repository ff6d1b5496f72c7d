from collections import Counter

import pytest

from loadtest.plan import Clicking, Ending, ending_of, plan_visits


def a_plan(shoppers: int = 600, seed: int = 7):
    return plan_visits(["a", "b"], shoppers, run="r1", seed=seed, spread_seconds=2.0)


def test_the_same_seed_plans_the_same_rush():
    assert a_plan() == a_plan()
    assert a_plan() != a_plan(seed=8)


def test_every_shopper_visits_the_main_sale_once_and_some_the_second():
    visits = a_plan()
    by_sale = Counter(visit.sale for visit in visits)
    assert by_sale == {"a": 600, "b": 30}
    assert len({(visit.sale, visit.shopper) for visit in visits}) == 630


def test_every_intent_has_a_key_of_its_own():
    visits = a_plan()
    assert len({visit.key for visit in visits}) == len(visits)
    assert {len(visit.key) for visit in visits} == {32}


def test_clicks_come_in_order_and_within_the_spread():
    instants = [visit.after_seconds for visit in a_plan()]
    assert instants == sorted(instants)
    assert 0 <= instants[0] <= instants[-1] <= 2.0


def test_a_small_rush_shows_every_kind_of_behaviour():
    assert {visit.clicking for visit in a_plan()} == set(Clicking)
    assert any(visit.is_patient for visit in a_plan())
    assert any(visit.waits for visit in a_plan())


@pytest.mark.parametrize("first", [0, 13, 980])
def test_any_twenty_orders_end_in_every_way(first):
    endings = Counter(map(ending_of, range(first, first + 20)))
    assert endings == {
        Ending.PAY: 10,
        Ending.PAY_TOLD_TWICE: 3,
        Ending.PAY_TOLD_LATE: 1,
        Ending.PAY_LATE: 1,
        Ending.CANCEL: 2,
        Ending.ABANDON: 3,
    }
