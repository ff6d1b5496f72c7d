"""
Judge what orders and stock promise: I1 to I5, I9 to I11, I17 to I20.

Everything is read, nothing is locked and nothing written, so it may run in the
middle of a sale. Each equation that Postgres alone can tell is judged from one
instant of each shard; what Redis and Postgres must agree on is in `audit_buckets`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis

from app.kernel.equation import EXAMPLES_MAX, Equation, equal, none_of
from app.kernel.errors import DoorbusterError
from app.orders import audit_store as store
from app.orders.audit_buckets import audit_buckets
from app.orders.audit_stock import (
    judge_bucket,
    judge_places,
    judge_stock,
    judge_units,
    tickets_are_missing,
)
from app.orders.audit_store import NO_BREAKS, ORDER_RULES, Breaks, Row, Rule, Sales
from app.storage.shards import Connection, Shard, Shards

NO_UNITS: Final = {"held": 0, "shipped": 0, "paid": 0}


class UnknownSale(DoorbusterError):
    """There is no such sale."""

    code = "sale_not_found"


@dataclass(slots=True)
class _Found:
    """What was read, from all shards."""

    stock: dict[int, Row] = field(default_factory=dict)
    buckets: dict[int, list[Row]] = field(default_factory=dict)  # by shard
    breaks: dict[Rule, dict[int, list[Breaks]]] = field(default_factory=dict)
    lost: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    units: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    returns: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    applied: list[Row] = field(default_factory=list)
    unfounded: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))


async def audit_orders(
    shards: Shards, redis: Redis, deployment: str, sale: str | None = None
) -> list[Equation]:
    """
    Judge every invariant of orders and stock.

    Args:
        shards: with the map read.
        redis: a client that may read every key.
        deployment: the first part of its keys.
        sale: a public id, or None for all sales.

    Returns:
        Equations of Postgres first, then those that need Redis. A Redis that does
        not answer leaves its equations unjudged.

    Raises:
        UnknownSale: there is none of that id.
        ShardUnavailable: a shard does not answer.
    """
    sales = await sales_in_scope(shards, sale)
    found = await _read(shards, sales)
    return [*_judge(shards, found), *await audit_buckets(shards, redis, deployment, sales)]


async def sales_in_scope(shards: Shards, sale: str | None) -> Sales:
    """
    Return the numbers of the sales to judge; None stands for all.

    Raises:
        UnknownSale: there is none of that id.
    """
    if sale is None:
        return None
    number = await store.find_sale(shards, sale)
    if number is None:
        raise UnknownSale(sale=sale)
    return [number]


async def audit_rules(
    shards: Shards, rules: Iterable[Rule], sales: Sales, names: dict[int, str]
) -> list[Equation]:
    """
    Judge rules over all shards, one equation for each rule and sale.

    Args:
        shards: all are asked.
        rules: of this stage or a later one.
        sales: see sales_in_scope.
        names: sale number -> subject; sales that break a rule are added to it.
    """
    breaks: dict[Rule, dict[int, list[Breaks]]] = {}
    rules = list(rules)
    for shard in shards.all:
        await _find_breaks(shard, rules, sales, breaks)
    return _judge_rules(breaks, names)


async def _read(shards: Shards, sales: Sales) -> _Found:
    """Read in the order in which a cause is always seen with its effect (audit_stock)."""
    found = _Found()
    credits_given: list[Row] = []
    for shard in shards.all:
        async with store.snapshot(shard) as connection:
            credits_given += await store.fetch_all(connection, store.SELECT_CREDITS, sales)
    for shard in shards.all:
        mine = [row for row in credits_given if shards.of(row["sale"], row["bucket"]) is shard]
        async with store.snapshot(shard) as connection:
            found.buckets[shard.index] = await _read_orders(connection, sales, found)
            await _check_credits(connection, mine, found)
        await _find_breaks(shard, ORDER_RULES, sales, found.breaks)
    for shard in shards.all:
        mine = [row for row in found.applied if shards.home(row["sale"]) is shard]
        async with store.snapshot(shard) as connection:
            stock = await store.fetch_all(connection, store.SELECT_STOCK, sales)
            found.stock |= {row["sale"]: row for row in stock}
            await _check_grants(connection, mine, found)
    return found


async def _read_orders(connection: Connection, sales: Sales, found: _Found) -> list[Row]:
    buckets = await store.fetch_all(connection, store.SELECT_BUCKETS, sales)
    for row in filter(tickets_are_missing, buckets):
        key = (row["sale"], row["bucket"])
        arguments = (*key, row["epoch"], row["orders_seen"], EXAMPLES_MAX)
        lost = await store.fetch_all(connection, store.FIND_LOST_TICKETS, *arguments)
        found.lost[key] = [missing["example"] for missing in lost]
    for statement, counts in (
        (store.SELECT_UNITS, found.units),
        (store.SELECT_RETURNS, found.returns),
    ):
        for row in await store.fetch_all(connection, statement, sales):
            counts[row["sale"]].update({name: row[name] for name in row if name != "sale"})
    found.applied += await store.fetch_all(connection, store.SELECT_APPLIED_GRANTS, sales)
    return buckets


async def _find_breaks(
    shard: Shard,
    rules: Iterable[Rule],
    sales: Sales,
    breaks: dict[Rule, dict[int, list[Breaks]]],
) -> None:
    for rule in rules:
        by_sale = breaks.setdefault(rule, {})
        for sale, broken in (await store.find_breaks(shard, rule, sales)).items():
            by_sale.setdefault(sale, []).append(broken)


async def _check_credits(connection: Connection, given: Sequence[Row], found: _Found) -> None:
    columns = store.columns(given, "sale", "bucket", "source", "source_id", "units")
    for row in await store.fetch_all(connection, store.FIND_UNDEBITED_CREDITS, *columns):
        found.unfounded[row["sale"]].append(row["example"])


async def _check_grants(connection: Connection, applied: Sequence[Row], found: _Found) -> None:
    columns = store.columns(applied, "sale", "bucket", "grant_id", "units")
    for row in await store.fetch_all(connection, store.FIND_UNISSUED_GRANTS, *columns):
        found.unfounded[row["sale"]].append(row["example"])


def _judge(shards: Shards, found: _Found) -> list[Equation]:
    buckets = [row for rows in found.buckets.values() for row in rows]
    names = {number: f"sale {row['id']}" for number, row in found.stock.items()}
    equations: list[Equation] = []
    for number, stock in found.stock.items():
        mine = [row for row in buckets if row["sale"] == number]
        equations += judge_stock(stock, mine, found.unfounded[number])
        units = NO_UNITS | dict(found.units[number])
        equations += judge_units(names[number], units, stock["stock_total"])
        equations.append(_judge_returns(names[number], found.returns[number]))
    for row in buckets:
        equations += judge_bucket(row, found.lost.get((row["sale"], row["bucket"]), ()))
    equations += judge_places(shards, found.buckets)
    return equations + _judge_rules(found.breaks, names)


def _judge_returns(sale: str, units: Counter[str]) -> Equation:
    return equal(
        "I19",
        sale,
        ("units returned", units["returned"]),
        ("units of orders that let go", units["let_go"]),
    )


def _judge_rules(
    breaks: dict[Rule, dict[int, list[Breaks]]], names: dict[int, str]
) -> list[Equation]:
    equations = []
    for rule, by_sale in breaks.items():
        for number in names.keys() | by_sale.keys():
            found = by_sale.get(number, [NO_BREAKS])
            examples = [example for part in found for example in part.examples]
            subject = names.get(number, f"sale number {number}")
            count = sum(part.count for part in found)
            equations.append(none_of(rule.invariant, subject, rule.what, count, examples))
    return equations
