"""
What becomes of a won order: paid, paid twice over, paid too late, cancelled, left.

Every step is asked again while its answer is "come again" or missing; a step
that is refused for good ends the shopper's part, and the checks afterwards say
whether the service was right.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from loadtest.client import Client, bearer, document
from loadtest.connection import Reply
from loadtest.errors import NoAnswer, Unreachable
from loadtest.history import History
from loadtest.plan import Ending

FINAL_STATES: Final = frozenset({"paid", "shipped", "completed", "closed", "refunded", "rejected"})
PAID_STATES: Final = frozenset({"paid", "shipped", "completed"})
_THINK_SHARES: Final = (0.05, 0.25)  # of the time to pay, before somebody does anything
LATE_CALLBACK_MS: Final = 3_000
_LOOK_AGAIN_SECONDS_MIN: Final = 0.2
_LOOK_AGAIN_SECONDS_MAX: Final = 1.0
_Judgement: TypeAlias = Callable[[Mapping[str, Any]], bool]
_AGAIN: Final = frozenset({"order_not_confirmed", "payment_in_progress", "outcome_unknown"})


@dataclass(slots=True)
class Checkout:
    """
    Ends orders.

    Attributes:
        public: connections of its own, so that payments do not queue behind clicks.
        sandbox: the gateway's control.
        history: for tokens; the endings are noted there.
        pay_within_seconds: of the sales; who leaves an order does not look before.
        give_up_seconds: for one order, from its beginning to a final state.
        begun, ended: how many orders, by ending.
        refusals: codes of payments and cancels that were refused for good.
    """

    public: Client
    sandbox: Client
    history: History
    pay_within_seconds: float
    give_up_seconds: float
    begun: Counter[Ending] = field(default_factory=Counter)
    ended: Counter[Ending] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    jitter: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    @property
    def under_way(self) -> int:
        """How many orders have neither ended nor been given up."""
        return self.begun.total() - self.ended.total() - self.refusals["gave_up"]

    async def end_order(self, shopper: str, order_id: str, ending: Ending) -> None:
        """Bring an accepted order to its planned end, or give up in time."""
        self.begun[ending] += 1
        self.history.endings[order_id] = ending
        order = _Order(self, shopper, order_id)
        think_seconds = self.pay_within_seconds * self.jitter.uniform(*_THINK_SHARES)
        try:
            async with asyncio.timeout(self.give_up_seconds):
                await asyncio.sleep(think_seconds)
                await _ACTS[ending](order)
        except TimeoutError:
            self.refusals["gave_up"] += 1
            return
        self.ended[ending] += 1


class _Order:
    """One shopper's order, as the shopper can act on it."""

    def __init__(self, checkout: Checkout, shopper: str, order_id: str) -> None:
        self._checkout = checkout
        self._authorization = bearer(checkout.history.tokens[shopper])
        self._path = f"/v1/orders/{order_id}"
        self._order_id = order_id
        self._deadline = time.monotonic() + checkout.pay_within_seconds

    async def pay(self) -> None:
        if await self._pay("now"):
            await self._until_final()

    async def pay_told_twice(self) -> None:
        if await self._pay("twice"):
            await self._until_final()

    async def pay_told_late(self) -> None:
        if await self._pay("late", LATE_CALLBACK_MS):
            await self._until_final()

    async def pay_late(self) -> None:
        """Open a payment, let the order close, then let the money come."""
        payment_id = await self._open_payment()
        await self._until_deadline()
        order = await self._until_final()
        if payment_id and order["status"] == "closed":
            await self._control(payment_id, "now")
            await self._until(_is_refunded)

    async def cancel(self) -> None:
        await self._post(f"{self._path}/cancel")
        await self._until_final()

    async def abandon(self) -> None:
        await self._until_deadline()
        await self._until_final()

    async def _pay(self, callback: str, delay_ms: int = 0) -> bool:
        payment_id = await self._open_payment()
        if not payment_id:
            await self._until_final()
            return False
        await self._control(payment_id, callback, delay_ms)
        return True

    async def _open_payment(self) -> str:
        """Open a payment attempt; empty when it was refused for good."""
        reply = await self._post(
            f"{self._path}/payments",
            key=f"pay-{self._order_id}",
            body={"provider": "sandbox", "product": "native"},
        )
        return str(document(reply).get("payment_id", "")) if reply.status in {200, 201} else ""

    async def _control(self, payment_id: str, callback: str, delay_ms: int = 0) -> None:
        """Play the other side: the shopper's wallet pays, the provider tells us."""
        sandbox = self._checkout.sandbox
        wish = {"outcome": "pay", "callback": callback, "delay_ms": delay_ms}
        request = sandbox.compose("POST", f"/control/payments/{payment_id}", body=wish)
        await self._repeat(sandbox, request)

    async def _post(self, path: str, *, key: str = "", body: object = None) -> Reply:
        public = self._checkout.public
        headers = self._authorization + (f"Idempotency-Key: {key}\r\n" if key else "")
        return await self._repeat(public, public.compose("POST", path, headers=headers, body=body))

    async def _repeat(self, client: Client, request: bytes) -> Reply:
        """Send until the answer is not "come again"; note what is refused for good."""
        wait_seconds = _LOOK_AGAIN_SECONDS_MIN
        while True:
            reply = await _answer_or_none(client, request)
            if reply is not None and not is_again(reply.status, _code(reply)):
                if reply.status >= 400:
                    self._checkout.refusals[_code(reply)] += 1
                return reply
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, _LOOK_AGAIN_SECONDS_MAX)

    async def _until_deadline(self) -> None:
        await asyncio.sleep(max(0.0, self._deadline - time.monotonic()))

    async def _until_final(self) -> dict[str, Any]:
        return await self._until(lambda order: order["status"] in FINAL_STATES)

    async def _until(self, is_so: _Judgement) -> dict[str, Any]:
        """Look at the order, ever less often, until it is so."""
        public = self._checkout.public
        request = public.compose("GET", self._path, headers=self._authorization)
        wait_seconds = _LOOK_AGAIN_SECONDS_MIN
        while True:
            reply = await _answer_or_none(public, request)
            if reply is not None and reply.status == 200 and is_so(order := document(reply)):
                return order
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(1.5 * wait_seconds, _LOOK_AGAIN_SECONDS_MAX)


_ACTS: Final[Mapping[Ending, Callable[[_Order], Awaitable[None]]]] = {
    Ending.PAY: _Order.pay,
    Ending.PAY_TOLD_TWICE: _Order.pay_told_twice,
    Ending.PAY_TOLD_LATE: _Order.pay_told_late,
    Ending.PAY_LATE: _Order.pay_late,
    Ending.CANCEL: _Order.cancel,
    Ending.ABANDON: _Order.abandon,
}


def _is_refunded(order: Mapping[str, Any]) -> bool:
    """Whether all the money that came too late has gone back."""
    refunds = order.get("refunds", ())
    return bool(refunds) and all(refund["status"] == "succeeded" for refund in refunds)


async def _answer_or_none(client: Client, request: bytes) -> Reply | None:
    try:
        return await client.send(request)
    except (NoAnswer, Unreachable):
        return None


def is_again(status: int, code: str) -> bool:
    """Whether an answer says "come again": nothing is refused for good; 0 is no answer."""
    return status in {0, 429, 500, 503} or code in _AGAIN


def _code(reply: Reply) -> str:
    if reply.status < 400:
        return ""
    return str(document(reply).get("code", f"http_{reply.status}"))
