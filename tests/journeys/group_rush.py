"""
A rush on a group sale: shoppers open groups and join them, pay, pay late, cancel and walk away.

Used small in every `make test`, and whole beside the faults.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tests.journeys.shop import Answer, Shop, new_key
from tests.waiting import eventually

SIZE: Final = 3
TRIES_MAX: Final = 6  # of a shopper who finds groups full
AT_ONCE_MAX: Final = 100
GROUPS_THAT_PAY: Final = 3  # so that some form whatever the dice say
FINAL: Final = frozenset({"paid", "closed", "refunded"})
FINAL_SECONDS: Final = 120.0
NO_SEAT: Final = frozenset({"group_full", "group_expired", "group_not_found"})
AGAIN: Final = frozenset({"recovering", "overloaded", "backlog_full", "outcome_unknown"})


@dataclass(frozen=True)
class Bought:
    """An accepted order, as its shopper was told of it."""

    shopper: str
    order_id: str
    group: str
    wish: str  # pay, pay_late, cancel or leave


@dataclass
class Rush:
    """Shoppers at one group sale."""

    shop: Shop
    sale: str
    chance: random.Random
    groups: list[str] = field(default_factory=list)
    bought: list[Bought] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    full: set[str] = field(default_factory=set)

    async def run(self, shoppers: int, at_once: int) -> None:
        """Let everybody come, some at a time, and do what they will."""
        turn = asyncio.Semaphore(at_once)

        async def visit(number: int) -> None:
            async with turn:
                await self._visit(f"rusher-{number}")

        await asyncio.gather(*(visit(number) for number in range(shoppers)))

    async def _visit(self, shopper: str) -> None:
        answer = await self._find_seat(shopper)
        if answer.status >= 400:
            self.refused[answer.code] += 1
            return
        ticket = answer.body
        if ticket["group"] not in self.groups:
            self.groups.append(ticket["group"])
        wishes = ("pay", "pay", "pay", "pay", "pay", "pay_late", "cancel", "leave")
        wish = self.chance.choice(wishes)
        if ticket["group"] in self.groups[:GROUPS_THAT_PAY]:
            wish = "pay"
        one = Bought(shopper, ticket["order_id"], ticket["group"], wish)
        self.bought.append(one)
        await self._act(one)

    async def _find_seat(self, shopper: str) -> Answer:
        """Open a group, or join one of those that are heard of; another one if it is full."""
        for _ in range(TRIES_MAX):
            joinable = [group for group in self.groups if group not in self.full]
            lead = not joinable or self.chance.random() < 0.2
            # The oldest draws the crowd: many want its last seat at once.
            group = "new" if lead else joinable[0]
            answer = await self._click(shopper, group)
            if answer.code not in NO_SEAT:
                return answer
            self.full.add(group)
        return answer

    async def _click(self, shopper: str, group: str) -> Answer:
        """Click with one key until there is an answer that is final."""
        key, answers = new_key(), []

        async def click() -> bool:
            answers.append(await self.shop.place(self.sale, shopper, key, {"group": group}))
            return answers[-1].code not in AGAIN

        await eventually(click, within_seconds=30.0)
        return answers[-1]

    async def _act(self, one: Bought) -> None:
        await self.shop.until_order(
            one.order_id, one.shopper, "pending", "closing", "closed", "paid"
        )
        if one.wish == "cancel":
            await self.shop.cancel(one.order_id, one.shopper)
        elif one.wish.startswith("pay"):
            started = await self.shop.start_payment(one.order_id, one.shopper)
            if started.status == 201:
                late: dict[str, Any] = {"callback": "late"} if one.wish == "pay_late" else {}
                await self.shop.play(started.body["payment_id"], outcome="pay", **late)

    async def settled(self) -> dict[str, dict[str, Any]]:
        """Wait until every order has ended; give them by id."""
        ended: dict[str, dict[str, Any]] = {}

        async def all_ended() -> bool:
            for one in self.bought:
                if one.order_id not in ended or ended[one.order_id]["status"] == "paid":
                    answer = await self.shop.order(one.order_id, one.shopper)
                    if answer.status == 200 and answer.body["status"] in FINAL:
                        ended[one.order_id] = answer.body
            groups = {group: await self.group(group) for group in self.groups}
            over = all(group["state"] in {"formed", "failed"} for group in groups.values())
            paid = [order for order in ended.values() if order["status"] == "paid"]
            whole = all(groups[order["group"]]["state"] == "formed" for order in paid)
            return over and whole and len(ended) == len(self.bought)

        await eventually(all_ended, within_seconds=FINAL_SECONDS)
        return ended

    async def group(self, group: str) -> dict[str, Any]:
        answer = await self.shop.ask("GET", f"{self.shop.run.public}/v1/groups/{group}")
        assert answer.status == 200, answer
        return answer.body


async def open_group_sale(shop: Shop, **terms: Any) -> str:
    """Publish a group sale; its groups' terms are given as `group`."""
    terms = {"kind": "group", "group": {"size": SIZE, "window_seconds": 600}, **terms}
    return await shop.open_sale(**terms)


async def rush(  # noqa: PLR0913  what a rush is made of
    shop: Shop,
    *,
    shoppers: int,
    stock: int,
    window_seconds: int,
    seed: int,
    at_once: int = AT_ONCE_MAX,
) -> Rush:
    """
    Let a rush happen, and check what every shopper is told at the end.

    Everybody paid in a group that formed, or has all of it back.
    """
    group = {"size": SIZE, "window_seconds": window_seconds}
    sale = await open_group_sale(
        shop, stock=stock, group=group, pay_within_seconds=max(3, window_seconds // 2)
    )
    one = Rush(shop, sale, random.Random(seed))  # noqa: S311  repeatable, no secret
    await one.run(shoppers, at_once)
    ended = await one.settled()
    groups = {name: await one.group(name) for name in one.groups}
    paid = Counter(order["group"] for order in ended.values() if order["status"] == "paid")
    assert all(count == SIZE for count in paid.values()), paid
    assert {name for name, group in groups.items() if group["state"] == "formed"} == set(paid)
    assert 0 < sum(paid.values()) <= stock
    assert len(paid) < len(groups), "no group failed: nothing was shown"
    for order in ended.values():
        back = sum(refund["amount_minor"] for refund in order["refunds"])
        taken = sum(one["status"] in {"paid", "paid_late"} for one in order["payments"])
        keeps = order["status"] == "paid"
        assert taken * order["total_minor"] - back == keeps * order["total_minor"], order
    return one
