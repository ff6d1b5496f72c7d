"""Refunds that operators ask for: partial, full, repeated, refused, sent again."""

import asyncio

import pytest

from app.kernel.ids import OrderKey
from app.payments.audit import audit_payments
from app.payments.intent import Attempt, RefundState
from app.payments.operator_refunds import (
    Asked,
    AskRefusal,
    RefundAsk,
    ask_refund,
    retry_refund,
)
from app.payments.provider import Outcome, RefundRequest, Result
from app.payments.refunds import send_refunds_once
from app.payments.stage import Providers
from app.sales.store import Act
from tests.stores.payments.desk import PRICE_MINOR, Desk
from tests.waiting import eventually


async def paid(desk: Desk) -> tuple[OrderKey, Attempt]:
    """Place an order and pay it, so that both sides know."""
    key = await desk.place()
    attempt = await desk.start(key)
    await desk.play(attempt.number, callback="never")
    told = await desk.provider.query(attempt.reference())
    assert told.value is not None
    message = desk.message(attempt, provider_number=told.value.provider_number)
    assert (await desk.receive(desk.callback(message, f"evt-{attempt.number}"))).status == 200
    return key, attempt


def ask(desk: Desk, key: OrderKey, amount_minor: int, name: str = "one", **changes) -> RefundAsk:
    asked = {
        "order_id": desk.order_id(key),
        "idempotency_key": f"refund-key-{name}",
        "amount_minor": amount_minor,
        "reason": "Scratched cup",
        "actor": "olga",
    }
    return RefundAsk(**{**asked, **changes})


async def refund_states(desk: Desk) -> list[str]:
    return [str(refund["state"]) for refund in await desk.refunds()]


async def broken_promises(desk: Desk) -> list[str]:
    equations = await audit_payments(desk.stage.shards)
    return [str(equation) for equation in equations if equation.holds is False]


async def test_partial_refunds_add_up_to_a_full_one_that_ends_the_order(desk: Desk):
    key, attempt = await paid(desk)
    parts = (1_000, 2_880, 5_000)
    for number, part in enumerate(parts, start=1):
        answer = await ask_refund(desk.stage, ask(desk, key, part, str(number) * 6))
        assert isinstance(answer, Asked)
        assert answer.refund.number == f"R{attempt.number}O{number:02d}"
        assert await desk.order_state(key) == ("refunded" if number == 3 else "paid")
        assert await broken_promises(desk) == []

    assert await send_refunds_once(desk.stage) == 3

    async def all_succeeded() -> bool:
        return await refund_states(desk) == ["succeeded"] * 3

    await eventually(all_succeeded)
    facts = [kind for kind, _ in await desk.facts()]
    assert facts.count("refund_requested") == facts.count("refund_succeeded") == 3
    assert await broken_promises(desk) == []
    (row,) = await desk.rows("SELECT units_held, refunded_minor FROM orders")
    assert (row["units_held"], row["refunded_minor"]) == (0, PRICE_MINOR)
    (move,) = await desk.rows("SELECT kind, units, state FROM bucket_moves")
    assert (move["kind"], move["units"], move["state"]) == ("return", 1, "asked")


async def test_more_than_is_left_is_refused_and_changes_nothing(desk: Desk):
    key, _ = await paid(desk)
    assert isinstance(await ask_refund(desk.stage, ask(desk, key, PRICE_MINOR - 1)), Asked)

    for amount in (2, PRICE_MINOR):
        answer = await ask_refund(desk.stage, ask(desk, key, amount, f"more-{amount}"))
        assert answer is AskRefusal.REFUND_EXCEEDS_PAID

    assert isinstance(await ask_refund(desk.stage, ask(desk, key, 1, "the-rest")), Asked)
    spent = await ask_refund(desk.stage, ask(desk, key, 1, "nothing-left"))
    assert spent is AskRefusal.NOT_REFUNDABLE
    assert len(await desk.refunds()) == 2


@pytest.mark.parametrize("state", ["pending", "closing", "closed"])
async def test_an_order_that_was_not_paid_is_not_refundable(desk: Desk, state: str):
    key = await desk.place(state=state)
    assert await ask_refund(desk.stage, ask(desk, key, 1)) is AskRefusal.NOT_REFUNDABLE
    assert await desk.refunds() == []


async def test_what_is_no_order_is_not_found(desk: Desk):
    queued = OrderKey(1, 0, 1, 5_000)
    for order_id in ("x", "0" * 26, desk.order_id(queued)):
        answer = await ask_refund(desk.stage, ask(desk, queued, 1, order_id=order_id))
        assert answer is AskRefusal.ORDER_NOT_FOUND


async def test_the_same_key_is_the_same_refund_and_other_content_is_refused(desk: Desk):
    key, _ = await paid(desk)
    asked = ask(desk, key, 1_000)

    answers = await asyncio.gather(*(ask_refund(desk.stage, asked) for _ in range(10)))
    again = await ask_refund(desk.stage, asked)

    assert {answer.refund.number for answer in answers if isinstance(answer, Asked)} == {
        again.refund.number  # type: ignore[union-attr]
    }
    assert sum(not answer.replayed for answer in answers if isinstance(answer, Asked)) == 1
    for change in ({"amount_minor": 999}, {"reason": "Another"}):
        other = await ask_refund(desk.stage, ask(desk, key, **{"amount_minor": 1_000, **change}))
        assert other is AskRefusal.IDEMPOTENCY_MISMATCH
    assert len(await desk.refunds()) == 1


async def test_refunds_asked_for_at_once_never_give_more_than_came_in(desk: Desk):
    key, _ = await paid(desk)
    answers = await asyncio.gather(
        *(ask_refund(desk.stage, ask(desk, key, 1_000, f"at-once-{n}")) for n in range(20))
    )
    assert sum(isinstance(answer, Asked) for answer in answers) == PRICE_MINOR // 1_000
    assert {answer for answer in answers if not isinstance(answer, Asked)} == {
        AskRefusal.REFUND_EXCEEDS_PAID
    }
    assert await broken_promises(desk) == []


async def test_an_operators_words_reach_the_provider_and_the_audit(desk: Desk):
    key, _ = await paid(desk)
    answer = await ask_refund(desk.stage, ask(desk, key, 1_000))
    assert isinstance(answer, Asked)
    assert answer.refund.request().reason == "Scratched cup"
    (row,) = await desk.rows("SELECT actor, act, subject, reason FROM audit_rows")
    assert tuple(row.values()) == ("olga", "refund asked", desk.order_id(key), "Scratched cup")


class RefusingOnce:
    """The real provider, but it refuses the first refund it is asked for."""

    def __init__(self, real) -> None:
        self._real = real
        self.numbers: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    async def refund(self, refund: RefundRequest) -> Result:
        self.numbers.append(refund.number)
        if len(self.numbers) == 1:
            return Result(Outcome.REJECTED, code="NOT_ENOUGH")
        return await self._real.refund(refund)


async def test_a_refused_refund_is_sent_again_with_its_number_when_somebody_says_so(desk: Desk):
    key, _ = await paid(desk)
    asked = await ask_refund(desk.stage, ask(desk, key, PRICE_MINOR))
    assert isinstance(asked, Asked)
    number = asked.refund.number
    refusing = RefusingOnce(desk.provider)
    stage = desk.stage_with(Providers([refusing]))
    await send_refunds_once(stage)
    assert await refund_states(desk) == ["abnormal"]

    act = Act(actor="olga", reason="Topped up")
    told = await retry_refund(stage, number, act)
    twice = await retry_refund(stage, number, act)
    await send_refunds_once(stage)

    assert told is not None
    assert told.state is RefundState.REQUESTED
    assert twice == told
    assert refusing.numbers == [number, number]

    async def succeeded() -> bool:
        return await refund_states(desk) == ["succeeded"]

    await eventually(succeeded)
    assert await broken_promises(desk) == []
    assert await retry_refund(stage, f"{number[:-2]}99", act) is None
    assert await retry_refund(stage, "R1234567", act) is None
