"""Every pair of state and event is decided here; a new state or event must be added."""

from app.kernel.errors import IllegalTransition
from app.orders.order import ORDER_MACHINE, OrderEvent, OrderState

# What is told of an order without moving it: the state repeats itself.
PAIRS = """
  state      payment_captured  close_asked  provider_closed  shipped  received   refunded_in_full  delivery_changed  reviewed  refund_requested  after_sale_moved  group_formed  group_merged
  pending    paid              closing      -                -        -          -                 pending           -         -                 -                 -             pending
  closing    paid              -            closed           -        -          -                 closing           -         -                 -                 -             closing
  paid       -                 -            -                shipped  -          refunded          paid              paid      paid              -                 paid          paid
  shipped    -                 -            -                -        completed  -                 -                 -         shipped           shipped           shipped       -
  completed  -                 -            -                -        -          -                 -                 -         completed         completed         -             -
  closed     -                 -            -                -        -          -                 -                 -         -                 -                 -             -
  refunded   -                 -            -                -        -          -                 -                 -         -                 -                 -             -
"""  # noqa: E501  a table reads best whole


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


REFUSED = """
  payment_captured  paid shipped completed closed refunded
  close_asked       closing paid shipped completed closed refunded
  provider_closed   pending paid shipped completed closed refunded
  shipped           pending closing shipped completed closed refunded
  received          pending closing paid completed closed refunded
  refunded_in_full  pending closing shipped completed closed refunded
  delivery_changed  shipped completed closed refunded
  reviewed          pending closing shipped completed closed refunded
  refund_requested  pending closing closed refunded
  after_sale_moved  pending closing paid closed refunded
  group_formed      pending closing completed closed refunded
  group_merged      shipped completed closed refunded
"""


def test_each_refused_pair_is_listed_and_kept_out_of_the_guard_of_its_statement():
    listed = {event: states for event, *states in map(str.split, REFUSED.strip().splitlines())}
    kept_out = {
        str(event): [state for state in OrderState if state not in ORDER_MACHINE.sources(event)]
        for event in OrderEvent
    }

    assert kept_out == listed


def test_nothing_leads_out_of_what_is_final():
    assert ORDER_MACHINE.finals() == [
        OrderState.COMPLETED,
        OrderState.CLOSED,
        OrderState.REFUNDED,
    ]
