"""Every pair of state and event is decided here; a new state or event must be added."""

from app.kernel.errors import IllegalTransition
from app.orders.order import ORDER_MACHINE, OrderEvent, OrderState

PAIRS = """
  state      payment_captured  close_asked  provider_closed  shipped  received   refunded_in_full
  pending    paid              closing      -                -        -          -
  closing    paid              -            closed           -        -          -
  paid       -                 -            -                shipped  -          refunded
  shipped    -                 -            -                -        completed  -
  completed  -                 -            -                -        -          -
  closed     -                 -            -                -        -          -
  refunded   -                 -            -                -        -          -
"""


def after(state, event):
    try:
        return ORDER_MACHINE.after(state, event)
    except IllegalTransition:
        return "-"


def test_every_pair_of_state_and_event_is_as_the_table_says():
    (_, *events), *rows = [line.split() for line in PAIRS.strip().splitlines()]
    found = [[state, *(after(state, event) for event in OrderEvent)] for state in OrderState]

    assert events == list(OrderEvent)
    assert found == rows


def test_an_order_begins_pending():
    assert ORDER_MACHINE.start is OrderState.PENDING


def test_what_is_paid_cannot_be_closed_and_what_is_closed_cannot_be_paid():
    reached = {state: reachable(state) for state in OrderState}

    assert OrderState.CLOSED not in reached[OrderState.PAID]
    assert OrderState.PAID not in reached[OrderState.CLOSED]


def reachable(state):
    """Every state that some path of events leads to."""
    seen, ahead = set(), {state}
    while ahead:
        seen |= ahead
        ahead = {to for (source, _), to in ORDER_MACHINE.moves.items() if source in ahead} - seen
    return seen
