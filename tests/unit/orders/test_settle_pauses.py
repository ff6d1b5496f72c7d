"""Orders whose payment is unknown are asked about less and less often, and never forgotten."""

from app.kernel.ids import OrderKey
from app.orders.settle_pauses import SettlePauses

ANN, BOB = OrderKey(1, 0, 1, 0), OrderKey(1, 0, 1, 1)
SECOND_MS = 1_000


def test_pauses_double_up_to_the_longest():
    pauses = SettlePauses(SECOND_MS, 5 * SECOND_MS)
    asked = [second for second in range(20) if pauses.take_due([ANN], second * SECOND_MS)]

    assert asked == [0, 1, 3, 7, 12, 17]


def test_each_order_has_a_pause_of_its_own():
    pauses = SettlePauses(SECOND_MS, 5 * SECOND_MS)
    assert pauses.take_due([ANN], 0) == [ANN]

    assert pauses.take_due([ANN, BOB], 1) == [BOB]
    assert pauses.take_due([ANN, BOB], SECOND_MS) == [ANN]


def test_an_order_that_ended_is_dropped_and_one_that_waits_is_not():
    pauses = SettlePauses(SECOND_MS, 5 * SECOND_MS)
    pauses.take_due([ANN], 0)
    pauses.take_due([BOB], 4 * SECOND_MS)

    pauses.forget_ended(6 * SECOND_MS)
    assert len(pauses) == 1
    assert pauses.take_due([BOB], 4_999) == []
