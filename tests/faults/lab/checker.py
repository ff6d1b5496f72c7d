"""
One judge for every run: what shoppers saw, what the rows say, what the audit says.

    rest        every bucket sells again, the queues are empty, every equation of the audit holds
    tickets     each accepted order is a row, or finally rejected where that is allowed
    rows        each row was promised to somebody; each key has one order
    witness     the order of things (witness.py)
    closing     the sales end, and every unit is where it belongs
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from app.kernel.equation import Doubt, Equation
from app.kernel.ids import OrderKey
from app.settlement.full_audit import audit_all
from app.storage.redis import open_redis
from app.storage.shards import Database, DatabaseSettings, Shards
from loadtest.answers import Outcome
from loadtest.checks import OrderDocument, check_history, check_orders
from loadtest.history import History
from loadtest.verify import read_orders
from tests.faults.lab.shoppers import Crowd
from tests.faults.lab.site import DEPLOYMENT, LEDGER, SHARDS, VALKEY, LeaseRow, Site
from tests.faults.lab.timing import let_pass
from tests.faults.lab.witness import Placed, asked_and_told, sold_out_too_early, testify

TICKET_SECONDS: Final = 10.0  # promise P3, counted from when everything serves again
REST_SECONDS: Final = 30.0  # refunds and postings follow
LOST: Final = "lost_in_recovery"

SELECT_ROWS: Final = """
SELECT o.sale, o.bucket, o.epoch, o.seq, l.sale_id, o.shopper, o.quantity, o.placed_at,
       o.closed_at
FROM orders o JOIN bucket_leases l USING (sale, bucket) WHERE l.sale_id = ANY($1)"""
SELECT_LETTERS: Final = """
SELECT d.sale, d.bucket, d.epoch, d.seq, d.reason FROM dead_letters d
JOIN bucket_leases l USING (sale, bucket) WHERE d.kind = 'order' AND l.sale_id = ANY($1)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """
    What a run may do to tickets.

    Attributes:
        losses: the disk itself was cut, so tickets may end as lost_in_recovery.
        letters: reasons of dead letters that the run made on purpose.
    """

    losses: bool = False
    letters: frozenset[str] = frozenset()


@dataclass(slots=True)
class Verdict:
    """What was found, and what is worth telling of a run that passed."""

    wrong: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)

    def require(self) -> None:
        """Fail the test with everything that is wrong."""
        assert not self.wrong, "\n".join([*self.wrong[:25], f"({len(self.wrong)} in all)"])


async def judge(site: Site, crowd: Crowd, allowed: Allowed = Allowed()) -> Verdict:
    """
    Bring a run to its end, and judge it.

    Everything is healed and started first; the crowd goes home when each of its wishes is settled.
    """
    site.heal()
    await site.start_what_is_down()
    sales = list(crowd.history.sales)
    await site.until_selling(sales)
    reopened_at = time.monotonic()
    await crowd.leave()
    verdict = Verdict()
    orders = await _final_orders(site, crowd, reopened_at, verdict)
    verdict.wrong += await _audit(site, sales)
    leases = await site.leases(sales)
    rows = await _read(site, SELECT_ROWS, sales)
    letters = await _read(site, SELECT_LETTERS, sales)
    seen = without_lost(crowd.history, orders) if allowed.losses else crowd.history
    verdict.wrong += _told(check_history(seen))
    verdict.wrong += _told(check_orders(seen, orders))
    verdict.wrong += _errors(crowd.history)
    verdict.wrong += _tickets(orders, allowed)
    verdict.wrong += _rows(site, crowd, rows)
    verdict.wrong += _witness(site, crowd, (rows, letters), leases, allowed)
    verdict.wrong += _letters(letters, allowed)
    await site.close_sales(sales)
    verdict.wrong += await _audit(site, sales)
    counts = Counter(str(click.outcome) for click in crowd.history.clicks)
    verdict.told = {
        "clicks": dict(counts),
        "orders": len(orders),
        "lost": sum(order.get("reason") == LOST for order in orders.values()),
        "letters": Counter(row["reason"] for row in letters),
        "epochs": {f"{row.sale}.{row.bucket}": row.epoch for row in leases},
    }
    return verdict


def without_lost(history: History, orders: Mapping[str, OrderDocument]) -> History:
    """Leave out what was lost with a disk: such a key may be used anew (I7)."""
    lost = {order_id for order_id, order in orders.items() if order.get("reason") == LOST}
    return History(
        sales=history.sales,
        tokens=history.tokens,
        clicks=[
            click._replace(order_id="", outcome=Outcome.SOLD_OUT)
            if click.order_id in lost
            else click
            for click in history.clicks
        ],
        endings={
            order_id: ending for order_id, ending in history.endings.items() if order_id not in lost
        },
        begun=history.begun,
    )


def _told(equations: Sequence[Equation]) -> list[str]:
    return [sentence(equation) for equation in equations if not equation.holds]


def sentence(equation: Equation) -> str:
    """Spell a broken equation with both sides and its counter-examples."""
    sides = (
        f"{equation.left} = {equation.left_value} {equation.relation} "
        f"{equation.right} = {equation.right_value}"
    )
    examples = "; ".join(equation.counter_examples)
    return f"{equation.invariant} {equation.subject}: {sides} {equation.note} [{examples}]"


async def _final_orders(
    site: Site, crowd: Crowd, reopened_at: float, verdict: Verdict
) -> dict[str, OrderDocument]:
    """Read every ticket until none is open, and hold its answer against the deadline."""
    orders: dict[str, OrderDocument] = {}
    started = time.monotonic()
    while True:
        orders = await read_orders(site.public, crowd.history)
        open_ends = [order_id for order_id, order in orders.items() if _is_open(order)]
        if not open_ends:
            return orders
        if time.monotonic() > max(reopened_at, started) + TICKET_SECONDS:
            for order_id in open_ends[:5]:
                key = site.order_ids.read(order_id)
                verdict.wrong.append(f"no final answer: {key} is {orders[order_id]}")
            return orders
        await let_pass(0.2)


def _is_open(order: OrderDocument) -> bool:
    return order["status"] in {"queued", "closing", "unread", "missing"}


async def _audit(site: Site, sales: Sequence[str]) -> list[str]:
    """Ask the service's own audit until it holds at rest, or say what does not."""
    give_up_at = time.monotonic() + REST_SECONDS
    async with asyncio.timeout(REST_SECONDS * 2):
        while True:
            equations = await _equations(site, sales)
            broken = [one for one in equations if not one.holds and not _may_be_open(one)]
            if not broken or time.monotonic() > give_up_at:
                return [f"audit: {sentence(one)}" for one in broken]
            await let_pass(0.2)


def _may_be_open(equation: Equation) -> bool:
    """Whether it is of the ledger as a whole, which is at rest only when nothing can be sold."""
    return equation.holds is None and equation.doubt is Doubt.IN_MOTION and _is_money(equation)


def _is_money(equation: Equation) -> bool:
    return equation.invariant in {"I12", "I13", "I14", "I15"}


async def _equations(site: Site, sales: Sequence[str]) -> list[Equation]:
    settings = DatabaseSettings(connections_max=2)
    shards = Shards([site.url(shard) for shard in SHARDS], settings)
    ledger = Database(site.url(LEDGER), settings)
    redis = open_redis(site.url(VALKEY), client_name="checker")
    try:
        await shards.read_map()
        return [
            equation
            for sale in sales
            for equation in await audit_all(shards, redis, ledger, DEPLOYMENT, sale)
        ]
    finally:
        await redis.aclose()
        await asyncio.gather(shards.close(), ledger.close())


async def _read(site: Site, statement: str, sales: Sequence[str]) -> list[asyncpg.Record]:
    return [row for shard in SHARDS for row in await site.query(shard, statement, list(sales))]


def _errors(history: History) -> list[str]:
    """Find answers that no fault excuses: a shopper hears yes, no, or come again."""
    return [
        f"{click.shopper} was answered {click.status} {click.code}"
        for click in history.clicks
        if click.outcome is Outcome.ERROR
    ]


def _tickets(orders: Mapping[str, OrderDocument], allowed: Allowed) -> list[str]:
    """Judge each rejected ticket: there is none, but for the reasons that the run gave."""
    reasons = {LOST} if allowed.losses else set()
    reasons |= allowed.letters
    return [
        f"accepted and lost: {order_id} {order}"
        for order_id, order in orders.items()
        if order["status"] == "rejected" and order.get("reason") not in reasons
    ]


def _rows(site: Site, crowd: Crowd, rows: Sequence[asyncpg.Record]) -> list[str]:
    """Find rows that nobody was promised: their shopper heard "no", or never asked."""
    accepted = crowd.history.accepted()
    keys = Counter(OrderKey(*row[:4]) for row in rows)
    wrong = [f"{key} has {count} rows" for key, count in keys.items() if count > 1]
    for row in rows:
        key = OrderKey(*row[:4])
        order_id = site.order_ids.write(key, row["shopper"])
        click = accepted.get(order_id)
        if click is None:
            wrong.append(f"{key} of {row['shopper']} was promised to nobody")
        elif (click.sale, click.shopper) != (row["sale_id"], row["shopper"]):
            wrong.append(f"{key} is {row['shopper']}'s, and {click.shopper} has its id")
    return wrong


def _witness(
    site: Site,
    crowd: Crowd,
    found: tuple[Sequence[asyncpg.Record], Sequence[asyncpg.Record]],
    leases: Sequence[LeaseRow],
    allowed: Allowed,
) -> list[str]:
    rows, letters = found
    placed = _placed(site, crowd, rows)
    parked = [OrderKey(*row[:4]) for row in letters if row["seq"] is not None]
    granted = {(row.sale, row.bucket): row.granted for row in leases}
    wrong = testify(placed, crowd.history.sales, granted, may_lose=allowed.losses, parked=parked)
    buckets = Counter(row.sale for row in leases)
    numbers = {row.sale for row in leases if buckets[row.sale] == 1}
    single = {order.sale for order in placed if order.key.sale in numbers}
    sales = {name: terms for name, terms in crowd.history.sales.items() if name in single}
    return wrong + sold_out_too_early(crowd.history.clicks, placed, sales)


def _placed(site: Site, crowd: Crowd, rows: Sequence[asyncpg.Record]) -> list[Placed]:
    """Join rows and promises: an order without a row is one that was lost."""
    times = asked_and_told(crowd.history.clicks)
    by_key = {OrderKey(*row[:4]): row for row in rows}
    placed = []
    for order_id, click in crowd.history.accepted().items():
        read = site.order_ids.read(order_id)
        assert read is not None, f"not an id of this site: {order_id}"
        row = by_key.get(read[0])
        asked_at, told_at = times[order_id]
        placed.append(
            Placed(
                key=read[0],
                sale=click.sale,
                shopper=click.shopper,
                quantity=1 if row is None else row["quantity"],
                asked_at=asked_at,
                told_at=told_at,
                placed_at=None if row is None else row["placed_at"],
                closed_at=None if row is None else row["closed_at"],
                is_lost=row is None,
            )
        )
    return placed


def _letters(letters: Sequence[asyncpg.Record], allowed: Allowed) -> list[str]:
    reasons = ({LOST} if allowed.losses else set()) | allowed.letters
    return [
        f"a dead letter nobody asked for: {dict(row)}"
        for row in letters
        if row["reason"] not in reasons
    ]
