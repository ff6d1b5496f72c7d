"""
A crowd that buys while everything breaks, and writes down what it was told.

Each shopper has one key for one wish and repeats it until the answer is final, however often the
answer is "unknown", "come again" or nothing at all. Some click twice at once, some click again
after winning, some wait for the row, some cancel, some pay.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.answers import (
    NO_ANSWER,
    UNREACHABLE,
    Answer,
    accepted_id,
    must_repeat,
    read_answer,
)
from loadtest.checkout import Checkout
from loadtest.client import Client, bearer, document
from loadtest.errors import NoAnswer, Unreachable
from loadtest.history import Click, History, SaleTerms
from loadtest.plan import Ending
from tests.faults.lab.site import Site
from tests.faults.lab.timing import let_pass

SHOPPERS: Final = 24
THINK_SECONDS: Final = 0.08  # two cores carry the site, the crowd and the proxies
REPEAT_SECONDS: Final = (0.05, 0.25)
CLICK_SECONDS: Final = 8.0  # a shopper's patience with one request
ENDING_SECONDS: Final = 45.0
TOKEN_SECONDS: Final = 4 * 3600  # outlasts a clock that is an hour wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What part of the shoppers does what; the rest clicks once and leaves its order be."""

    twice_at_once: float = 0.10
    again_later: float = 0.10
    waits_for_row: float = 0.10
    cancels: float = 0.15
    pays: float = 0.04


@dataclass(slots=True)
class Crowd:
    """
    The shoppers of one run.

    Attributes:
        site: where they buy.
        sales: between which they choose.
        seed: of every choice.
        history: every call, with its monotonic times.
        give_up_at: monotonic; nobody repeats a click after that.
        patience_seconds: of who ends an order, from the moment it was accepted.
    """

    site: Site
    sales: Sequence[SaleTerms]
    seed: int
    shoppers: int = SHOPPERS
    think_seconds: float = THINK_SECONDS
    habits: Habits = field(default_factory=Habits)
    history: History = field(default_factory=History)
    give_up_at: float = float("inf")
    patience_seconds: float = ENDING_SECONDS
    _clicks: Client = field(init=False)
    _checkout: Checkout = field(init=False)
    _gateway: Client = field(init=False)
    _chance: random.Random = field(init=False)
    _is_over: bool = False
    _born: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.history.sales = {terms.sale: terms for terms in self.sales}
        self._chance = random.Random(self.seed)  # noqa: S311  a seed, not a secret
        self._clicks = Client(self.site.public, timeout_seconds=CLICK_SECONDS)
        self._gateway = Client(self.site.sandbox)
        self._checkout = Checkout(
            public=Client(self.site.public, timeout_seconds=CLICK_SECONDS),
            sandbox=self._gateway,
            history=self.history,
            pay_within_seconds=0.0,
            give_up_seconds=self.patience_seconds,
        )

    @property
    def accepted(self) -> int:
        """How many orders the crowd has been promised."""
        return len(self.history.accepted())

    def begin(self) -> None:
        """Let the crowd in."""
        for _ in range(self.shoppers):
            self._spawn(self._shop())

    async def leave(self, within_seconds: float = 60.0) -> None:
        """Let nobody else in, and wait until everybody has a final answer or gives up."""
        self._is_over = True
        self.give_up_at = time.monotonic() + within_seconds
        while self._tasks:
            await asyncio.gather(*self._tasks)
        self._hang_up()

    async def abandon(self) -> None:
        """Send everybody home in the middle of whatever they do: the test has failed."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._hang_up()
        await let_pass(0.05)  # for connections to close

    def _hang_up(self) -> None:
        for client in (self._clicks, self._checkout.public, self._gateway):
            client.close()

    async def visit(self, sale: SaleTerms, *, shopper: str = "") -> list[Answer]:
        """Play one shopper's part; tell every answer."""
        chance, habits = self._chance, self.habits
        want = self.wish(sale, shopper, waits=chance.random() < habits.waits_for_row)
        twin = chance.random() < habits.twice_at_once
        clicks = [self.click_until_final(want) for _ in range(2 if twin else 1)]
        answers = list(await asyncio.gather(*clicks))
        order_id = accepted_id(answers)
        if order_id and chance.random() < habits.again_later:
            answers.append(await self.click_until_final(want))
        if order_id:
            self._end(want.shopper, order_id)
        return answers

    def wish(self, sale: SaleTerms, shopper: str = "", *, waits: bool = False) -> "Want":
        """Make up what somebody wants once: a shopper, new unless named, and a key."""
        self._born += 1
        shopper = shopper or f"s{self.seed}-{self._born}"
        token = self.history.tokens.setdefault(
            shopper, self.site.signer.sign(shopper, TOKEN_SECONDS)
        )
        key = hashlib.sha256(f"{self.seed} {shopper} {self._born}".encode()).hexdigest()[:32]
        return Want(sale.sale, shopper, key, token, waits=waits)

    async def click_until_final(self, want: "Want") -> Answer:
        """Click, and repeat with the same key while the answer leaves it open."""
        answer = await self.click(want)
        while must_repeat(answer) and time.monotonic() < self.give_up_at:
            await let_pass(self._chance.uniform(*REPEAT_SECONDS))
            answer = await self.click(want)
        return answer

    async def click(self, want: "Want") -> Answer:
        """Send one order and note what came of it."""
        history = self.history
        request = self._clicks.compose(
            "POST",
            f"/v1/sales/{want.sale}/orders",
            headers=want.headers,
            body={"quantity": 1},
        )
        history.begun += 1
        call = _Call(time.monotonic())
        try:
            reply = await self._clicks.send(request)
        except NoAnswer as lost:
            call.sent_at = lost.sent_at
        except Unreachable:
            call.answer = UNREACHABLE
        else:
            call.status, call.sent_at, call.answered_at = (
                reply.status,
                reply.sent_at,
                reply.answered_at,
            )
            replayed = reply.header("Idempotency-Replayed") == "true"
            call.answer = read_answer(reply.status, document(reply), replayed=replayed)
        finally:  # who hangs up has asked as well, and knows nothing
            history.clicks.append(call.noted(want))
        return call.answer

    async def _shop(self) -> None:
        """Come again and again, as somebody else each time, until the doors close."""
        while not self._is_over:
            await self.visit(self._chance.choice(self.sales))
            await let_pass(self._chance.uniform(0, 2 * self.think_seconds))

    def _end(self, shopper: str, order_id: str) -> None:
        fate = self._chance.random()
        if fate < self.habits.cancels:
            self._spawn(self._checkout.end_order(shopper, order_id, Ending.CANCEL))
        elif fate < self.habits.cancels + self.habits.pays:
            self._spawn(self._checkout.end_order(shopper, order_id, Ending.PAY))

    def _spawn(self, work: "asyncio.coroutines.Coroutine[object, object, None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True, slots=True)
class Want:
    """What a shopper wants once: the owner of one key."""

    sale: str
    shopper: str
    key: str
    token: str
    waits: bool = False

    @property
    def headers(self) -> str:
        wait = "Prefer: wait=2\r\n" if self.waits else ""
        return f"{bearer(self.token)}Idempotency-Key: {self.key}\r\n{wait}"


@dataclass(slots=True)
class _Call:
    """One request, and what came of it: nothing, until something does."""

    planned_at: float
    sent_at: float = 0.0
    answered_at: float = 0.0
    answer: Answer = NO_ANSWER
    status: int = 0

    def noted(self, want: Want) -> Click:
        """Write the call down as the history keeps it."""
        return Click(
            sale=want.sale,
            shopper=want.shopper,
            key=want.key,
            planned_at=self.planned_at,
            sent_at=self.sent_at or self.planned_at,
            answered_at=self.answered_at or time.monotonic(),
            outcome=self.answer.outcome,
            order_id=self.answer.order_id,
            code=self.answer.code,
            waited=want.waits,
            status=self.status,
        )
