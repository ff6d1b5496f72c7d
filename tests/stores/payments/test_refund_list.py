"""Operators find every refund of a state, on whatever shard, newest first and page by page."""

from datetime import timedelta

from app.payments.intent import Refund, RefundState
from app.payments.refund_list import list_refunds, view_for_operators
from tests.stores.payments.desk import PRICE_MINOR, Desk
from tests.stores.payments.test_refunds import late_payment

AGED = """
UPDATE refunds SET state = $2::text::refund_state, requested_at = $3 WHERE attempt_number = $1"""


async def refunds_in(desk: Desk, *states: str) -> list[str]:
    """Make a refund of each state, each a minute older than the one before."""
    attempts = []
    for age, state in enumerate(states):
        number = await late_payment(desk)
        await desk.execute(AGED, number, state, desk.stage.now() - timedelta(minutes=age))
        attempts.append(number)
    return attempts


def attempts_of(refunds: list[Refund]) -> list[str]:
    return [refund.attempt.number for refund in refunds]


async def test_a_state_is_listed_whole_and_alone(desk: Desk):
    made = await refunds_in(desk, "abnormal", "unknown", "abnormal", "requested", "succeeded")
    shards = desk.stage.shards

    everything = await list_refunds(shards, None, None, 99)
    abnormal = await list_refunds(shards, None, RefundState.ABNORMAL, 99)
    unknown = await list_refunds(shards, None, RefundState.UNKNOWN, 99)

    assert attempts_of(everything) == made
    assert attempts_of(abnormal) == [made[0], made[2]]
    assert attempts_of(unknown) == [made[1]]
    shown = view_for_operators(unknown[0])
    assert (shown.payment_id, shown.order_id) == (made[1], made[1][:-2])
    assert (shown.status, shown.amount_minor) == ("unknown", PRICE_MINOR)
    assert (shown.by_hand, shown.doubled) == (None, False)


async def test_pages_hold_each_refund_once_though_all_were_asked_for_at_once(desk: Desk):
    made = await refunds_in(desk, *["abnormal"] * 5)
    await desk.execute("UPDATE refunds SET requested_at = $1", desk.stage.now())
    seen: list[Refund] = []
    while True:
        before = (seen[-1].requested_at, seen[-1].number) if seen else None
        page = await list_refunds(desk.stage.shards, before, RefundState.ABNORMAL, 2)
        if not page:
            break
        seen += page

    assert attempts_of(seen) == sorted(made, reverse=True)
