"""
A whole rush: two sales, the release at the opening instant, the last call, the drain.

The main sale takes every shopper; a small second one shows that two sales live
side by side, on shards of their own.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from loadtest.checkout import Checkout
from loadtest.client import Client, document
from loadtest.errors import NoAnswer, Refused, Unreachable
from loadtest.history import History, SaleTerms
from loadtest.merchant import Merchant
from loadtest.plan import Visit, plan_visits, shopper_id
from loadtest.shoppers import Shop, begin_visit
from loadtest.tokens import Signer

SECOND_SALE_STOCK_SHARE: Final = 10
PRICE_MINOR: Final = 8_880
LAST_CALL_SECONDS: Final = 5.0  # the patient all look once more when nothing is on its way back
_DOORS: Final = 64  # shoppers clicking at the same time; enough to saturate two cores
_CHECKOUT_CONNECTIONS_MAX: Final = 192  # more than doors, or the rush starves who pays
_WAITING_CONNECTIONS_MAX: Final = 256
_READY_SECONDS_MAX: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_QUIET_LOOK_SECONDS: Final = 0.5
_DRAIN_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the service is, and what is needed to use it."""

    public_url: str
    admin_url: str
    admin_token: str
    sandbox_url: str
    signer: Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class RushOptions:
    """
    How big a rush is, and how long its parts last.

    Attributes:
        run: makes sales, shoppers and keys unique; of [0-9a-z].
        lobby_seconds: from the publishing of the sales to their opening.
        spread_seconds: the clicks are planned over so long, thickest at the start.
        pay_within_seconds: the last quarter of it takes no new payment.
        give_up_seconds: when a shopper stops looking at an order.
    """

    run: str
    shoppers: int = 20_000
    stock: int = 1_000
    seed: int = 1
    lobby_seconds: float = 2.0
    spread_seconds: float = 1.0
    pay_within_seconds: int = 20
    give_up_seconds: float = 60.0

    def __post_init__(self) -> None:
        assert self.shoppers >= 1
        assert self.stock >= 1
        assert self.pay_within_seconds >= 1


@dataclass(slots=True)
class Rush:
    """
    A rush under way: what the progress display looks at, and the verdict judges.

    Attributes:
        sales: ids; the main sale first.
        visits: the plan.
        phase: for people.
        began_at: monotonic seconds, as all instants here.
        released_at: 0 before.
        generator_cores: how much of a core this process used during the rush.
        looks: when somebody looked at the queues, and how many such orders there were.
    """

    options: RushOptions
    history: History
    shop: Shop
    visits: list[Visit]
    sales: tuple[str, ...]
    phase: str = "lobby"
    began_at: float = field(default_factory=time.monotonic)
    released_at: float = 0.0
    generator_cores: float = 0.0
    looks: list[tuple[float, int]] = field(default_factory=list)

    @property
    def is_rush(self) -> bool:
        """Whether some shopper still waits for the answer to a first click."""
        return self.released_at > 0 and self.shop.first_answers < len(self.visits)

    @property
    def backlog(self) -> int:
        """Accepted orders without a row, at the last look."""
        return self.looks[-1][1] if self.looks else 0


async def play_rush(site: Site, options: RushOptions, watch: Callable[[Rush], None]) -> Rush:
    """
    Play a whole rush against a running service.

    Args:
        site: where.
        options: how.
        watch: is shown the rush before it begins, and may look at it at any time.

    Raises:
        Refused: the sales could not be made.
        Unreachable: nobody listens.
        NoAnswer: the service stopped answering before the sales were made.
    """
    merchant = Merchant(site.admin_url, site.admin_token)
    async with (
        Client(site.public_url) as clicks,
        Client(site.public_url, connections_max=_WAITING_CONNECTIONS_MAX) as waits,
        Client(site.public_url, connections_max=_CHECKOUT_CONNECTIONS_MAX) as payments,
        Client(site.sandbox_url, connections_max=_CHECKOUT_CONNECTIONS_MAX) as sandbox,
    ):
        history = _plan_history(options, site.signer)
        checkout = Checkout(
            payments, sandbox, history, options.pay_within_seconds, options.give_up_seconds
        )
        rush = _plan_rush(options, Shop(clicks, waits, checkout, history))
        watch(rush)
        release_at = await _open_sales(merchant, rush)
        looking = asyncio.create_task(_look_at_queues(merchant, rush))
        try:
            await _wait_until_ready(merchant, rush)
            await _run_visits(rush, release_at)
            await _drain(rush)
        finally:
            looking.cancel()
            merchant.close()
    rush.phase = "over"
    return rush


def _plan_history(options: RushOptions, signer: Signer) -> History:
    second = max(1, options.stock // SECOND_SALE_STOCK_SHARE)
    terms = [
        SaleTerms(f"rush-{options.run}", options.stock, 1, PRICE_MINOR, "CNY"),
        SaleTerms(f"side-{options.run}", second, 1, PRICE_MINOR, "CNY"),
    ]
    shoppers = (shopper_id(options.run, number) for number in range(options.shoppers))
    return History(
        sales={each.sale: each for each in terms},
        tokens={shopper: signer.sign(shopper) for shopper in shoppers},
    )


def _plan_rush(options: RushOptions, shop: Shop) -> Rush:
    sales = tuple(shop.history.sales)
    visits = plan_visits(
        sales,
        options.shoppers,
        run=options.run,
        seed=options.seed,
        spread_seconds=options.spread_seconds,
    )
    return Rush(options, shop.history, shop, visits, sales)


async def _open_sales(merchant: Merchant, rush: Rush) -> float:
    """Make the sales; tell when they open by our monotonic clock."""
    behind_seconds = await clock_behind_seconds(rush.shop.public)
    release_at = time.monotonic() + rush.options.lobby_seconds
    opens_in = timedelta(seconds=rush.options.lobby_seconds + behind_seconds)
    opens_at = datetime.now(UTC) + opens_in
    for sale, title in zip(rush.sales, ("The rush", "A small sale beside it"), strict=True):
        await merchant.open_sale(
            rush.history.sales[sale],
            title=title,
            opens_at=opens_at,
            pay_within_seconds=rush.options.pay_within_seconds,
        )
    return release_at


async def _wait_until_ready(merchant: Merchant, rush: Rush) -> None:
    """Wait until every sale's stock stands ready, as it does in a shop that plans ahead."""
    deadline = time.monotonic() + _READY_SECONDS_MAX
    while not await merchant.is_ready(rush.sales):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def clock_behind_seconds(public: Client) -> float:
    """
    Tell how far our clock is behind the one that decides the window.

    Returns:
        Seconds, negative when ours is ahead; exact to half a round trip.

    Raises:
        Unreachable, NoAnswer: the service does not answer.
    """
    await public.call("GET", "/v1/time")  # the first one pays for the connection
    reply = await public.call("GET", "/v1/time")
    middle = time.time() - (time.monotonic() - (reply.sent_at + reply.answered_at) / 2)
    return int(document(reply)["now_ms"]) / 1_000 - middle


async def _run_visits(rush: Rush, release_at: float) -> None:
    """Let everybody in, and wait until the last one has gone home."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_give_last_call(rush))
        await _release(rush, release_at, group)


async def _release(rush: Rush, release_at: float, group: asyncio.TaskGroup) -> None:
    """Open the doors: each lets one shopper click at a time, in the order of the plan."""
    await _sleep_until(release_at)
    rush.phase = "rush"
    rush.released_at = time.monotonic()
    group.create_task(_weigh(rush))
    waiting = iter(rush.visits)
    for _ in range(_DOORS):
        group.create_task(_let_in(rush, waiting, group))


async def _let_in(rush: Rush, waiting: Iterator[Visit], group: asyncio.TaskGroup) -> None:
    """Let in one shopper after the other, none before the planned instant."""
    for visit in waiting:
        planned_at = rush.released_at + visit.after_seconds
        if planned_at > time.monotonic():
            await _sleep_until(planned_at)
        begun = begin_visit(rush.shop, visit, planned_at, group)
        if visit.waits:  # for the row, and nobody behind them for their turn
            group.create_task(begun)
        else:
            await begun


async def _sleep_until(instant: float) -> None:
    await asyncio.sleep(max(0.0, instant - time.monotonic()))


async def _give_last_call(rush: Rush) -> None:
    """Send the patient home once no order has been under way for a while."""
    shop, quiet_since = rush.shop, time.monotonic()
    while time.monotonic() - quiet_since < LAST_CALL_SECONDS:
        await asyncio.sleep(_QUIET_LOOK_SECONDS)
        if rush.released_at == 0 or rush.is_rush:
            quiet_since = time.monotonic()
        elif shop.checkout.under_way:
            rush.phase = "payments, cancels, expiries"
            quiet_since = time.monotonic()
    rush.phase = "last call"
    shop.last_call.set()


async def _look_at_queues(merchant: Merchant, rush: Rush) -> None:
    """Note how many accepted orders wait for their row: often during the rush, then seldom."""
    while True:
        with contextlib.suppress(NoAnswer, Unreachable, Refused):
            backlog = await merchant.backlog(rush.sales)
            rush.looks.append((time.monotonic(), backlog))
        await asyncio.sleep(_LOOK_SECONDS if rush.is_rush else _QUIET_LOOK_SECONDS)


async def _weigh(rush: Rush) -> None:
    """Note what the generator itself costs while the rush lasts."""
    used, since = time.process_time(), time.monotonic()
    while rush.is_rush:
        await asyncio.sleep(_LOOK_SECONDS)
        rush.generator_cores = (time.process_time() - used) / (time.monotonic() - since)


async def _drain(rush: Rush) -> None:
    """Wait until a look at the queues, begun from now on, finds them empty."""
    rush.phase = "drain"
    began = time.monotonic()
    while rush.backlog or not rush.looks or rush.looks[-1][0] < began:
        if time.monotonic() - began > _DRAIN_SECONDS_MAX:
            return
        await asyncio.sleep(_LOOK_SECONDS)
