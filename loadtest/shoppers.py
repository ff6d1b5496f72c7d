"""
One shopper: clicks until the answer is final, then ends the order as planned.

A shopper knows nothing but the answers. What is undecided (no answer, "overloaded",
"outcome unknown") is settled in the one way that is always safe: the same
request with the same key, again.
"""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from loadtest.answers import (
    ACCEPTED,
    NO_ANSWER,
    UNREACHABLE,
    Answer,
    Outcome,
    accepted_id,
    must_repeat,
    read_answer,
)
from loadtest.checkout import Checkout
from loadtest.client import Client, bearer, document
from loadtest.errors import NoAnswer, Unreachable
from loadtest.history import Click, History
from loadtest.plan import Clicking, Ending, Visit, ending_of, other_key

REPEAT_WAIT_MS: Final = 200  # when the answer did not say how long
REPEATS_MAX: Final = 40
COME_BACK_SECONDS_MIN: Final = 1.5  # how soon the patient look for returned units, and
COME_BACK_SECONDS_MAX: Final = 5.0  # how seldom in the end
_WAIT_FOR_ROW: Final = "Prefer: wait=5\r\n"


@dataclass(slots=True)
class Shop:
    """
    What all shoppers of a run share.

    Attributes:
        public: connections for clicks.
        waits: connections for clicks that wait for their row.
        checkout: what ends an order, on connections of its own.
        last_call: set when nothing can return any more; the patient go home.
        won: orders won at the first try, by sale: the next one's ordinal.
        sold_again: orders won by those who came back.
        first_answers: visits whose first click has its final answer.
    """

    public: Client
    waits: Client
    checkout: Checkout
    history: History
    last_call: asyncio.Event = field(default_factory=asyncio.Event)
    won: Counter[str] = field(default_factory=Counter)
    sold_again: int = 0
    first_answers: int = 0
    jitter: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    def next_ending(self, sale: str) -> Ending:
        """Give the fate of the next order won: the first stock shows them all, the rest pays."""
        ordinal = self.won[sale]
        self.won[sale] += 1
        return ending_of(ordinal) if ordinal < self.history.sales[sale].stock else Ending.PAY


async def begin_visit(
    shop: Shop,
    visit: Visit,
    planned_at: float,
    group: asyncio.TaskGroup,
) -> None:
    """
    Click once, and leave whatever follows to a task of its own.

    Most visits of a rush are over with this one answer, so they cost no task.

    Args:
        shop: shared.
        visit: what this shopper does.
        planned_at: monotonic seconds of the click; now, or past.
        group: where the rest of the visit goes.
    """
    twin = None
    if visit.clicking is Clicking.TWICE_AT_ONCE:
        twin = group.create_task(_click_until_final(shop, visit, visit.key, planned_at))
    answer = await _click(shop, visit, visit.key, planned_at)
    if twin is None and not _goes_on(visit, answer):
        shop.first_answers += 1
    else:
        group.create_task(_end_visit(shop, visit, answer, twin))


def _goes_on(visit: Visit, answer: Answer) -> bool:
    """Whether a visit has more to it than its first answer."""
    if answer.outcome is Outcome.SOLD_OUT:
        return visit.is_patient and answer.may_return
    return answer.outcome in ACCEPTED or must_repeat(answer)


async def _end_visit(
    shop: Shop,
    visit: Visit,
    answer: Answer,
    twin: asyncio.Task[Answer] | None,
) -> None:
    """Play a visit from its first answer to the end of its order."""
    answers = [await _until_final(shop, visit, visit.key, answer)]
    if twin is not None:
        answers.append(await twin)
    shop.first_answers += 1
    order_id = accepted_id(answers)
    if order_id:
        await _keep_clicking(shop, visit)
        ending = shop.next_ending(visit.sale)
    else:
        order_id = await _come_back(shop, visit, answers[-1])
        shop.sold_again += bool(order_id)
        ending = Ending.PAY
    if order_id:
        await shop.checkout.end_order(visit.shopper, order_id, ending)


async def _keep_clicking(shop: Shop, visit: Visit) -> None:
    """Click again after winning: a replay with the same key, a refusal with another."""
    now = time.monotonic()
    if visit.clicking is Clicking.AGAIN_LATER:
        await _click_until_final(shop, visit, visit.key, now)
    if visit.clicking is Clicking.OTHER_KEY:
        await _click_until_final(shop, visit, other_key(visit.key), now)


async def _come_back(shop: Shop, visit: Visit, answer: Answer) -> str:
    """Look for returned units until one is won, none can return, or the last call."""
    seconds = COME_BACK_SECONDS_MIN
    while visit.is_patient and answer.outcome is Outcome.SOLD_OUT and answer.may_return:
        if await is_set_within(shop.last_call, seconds * shop.jitter.uniform(0.5, 1.0)):
            return ""
        seconds = min(1.5 * seconds, COME_BACK_SECONDS_MAX)
        answer = await _click_until_final(shop, visit, visit.key, time.monotonic())
    return answer.order_id if answer.outcome in ACCEPTED else ""


async def _click_until_final(shop: Shop, visit: Visit, key: str, planned_at: float) -> Answer:
    return await _until_final(shop, visit, key, await _click(shop, visit, key, planned_at))


async def _until_final(shop: Shop, visit: Visit, key: str, answer: Answer) -> Answer:
    """Repeat a click with the same key while the answer leaves it open."""
    for _ in range(REPEATS_MAX):
        if not must_repeat(answer):
            break
        wait_ms = (answer.retry_after_ms or REPEAT_WAIT_MS) * shop.jitter.uniform(1.0, 1.5)
        await asyncio.sleep(wait_ms / 1_000)
        answer = await _click(shop, visit, key, time.monotonic())
    return answer


async def _click(shop: Shop, visit: Visit, key: str, planned_at: float) -> Answer:
    history = shop.history
    wait = _WAIT_FOR_ROW if visit.waits else ""
    request = shop.public.compose(
        "POST",
        f"/v1/sales/{visit.sale}/orders",
        headers=f"{bearer(history.tokens[visit.shopper])}Idempotency-Key: {key}\r\n{wait}",
        body={"quantity": 1},
    )
    history.begun += 1
    status, sent_at, answered_at = 0, planned_at, 0.0
    try:
        reply = await (shop.waits if visit.waits else shop.public).send(request)
    except NoAnswer as exc:
        answer, sent_at = NO_ANSWER, exc.sent_at
    except Unreachable:
        answer = UNREACHABLE
    else:
        status, sent_at, answered_at = reply.status, reply.sent_at, reply.answered_at
        replayed = reply.header("Idempotency-Replayed") == "true"
        answer = read_answer(status, document(reply), replayed=replayed)
    history.clicks.append(
        Click(
            sale=visit.sale,
            shopper=visit.shopper,
            key=key,
            planned_at=planned_at,
            sent_at=sent_at,
            answered_at=answered_at or time.monotonic(),
            outcome=answer.outcome,
            order_id=answer.order_id,
            code=answer.code,
            waited=visit.waits,
            status=status,
        )
    )
    return answer


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, for so long; tell whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
