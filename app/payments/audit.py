"""
Judge what payments promise: I12, I13, I16.

Safe while a sale runs: each rule compares rows that change together. Only what
providers have yet to send back is judged at rest.
"""

from collections import Counter
from typing import Final

from app.kernel.equation import (
    EXAMPLES_MAX,
    Doubt,
    Equation,
    Relation,
    equal,
    none_of,
    unjudged,
)
from app.orders.audit import audit_rules, sales_in_scope
from app.orders.audit_store import SELECT_STOCK, Row, Sales, fetch_all, snapshot
from app.payments import audit_store as store
from app.storage.shards import Shards

_SENT_BACK: Final = ("refunds that succeeded", Relation.EQUAL, "refunds asked for")


async def audit_payments(shards: Shards, sale: str | None = None) -> list[Equation]:
    """
    Judge every invariant of payments and refunds.

    Args:
        shards: with the map read.
        sale: a public id, or None for all sales.

    Raises:
        UnknownSale: there is none of that id.
        ShardUnavailable: a shard does not answer.
    """
    sales = await sales_in_scope(shards, sale)
    names = await _names(shards, sales)
    sums = await _sums(shards, sales)
    equations = [
        *(_judge_money(_subject(names, row), row) for row in sums[store.SELECT_MONEY]),
        *(_judge_late(_subject(names, row), row) for row in sums[store.SELECT_LATE]),
        *(_judge_refunds(_subject(names, row), row) for row in sums[store.SELECT_REFUNDS]),
    ]
    equations += await audit_rules(shards, store.PAYMENT_RULES, sales, names)
    return [*equations, await _judge_captures(shards)]


async def _names(shards: Shards, sales: Sales) -> dict[int, str]:
    names: dict[int, str] = {}
    for shard in shards.all:
        async with snapshot(shard) as connection:
            rows = await fetch_all(connection, SELECT_STOCK, sales)
        names |= {row["sale"]: f"sale {row['id']}" for row in rows}
    return names


async def _sums(shards: Shards, sales: Sales) -> dict[str, list[Row]]:
    """Return statement -> one row for each sale and currency, summed over the shards."""
    statements = (store.SELECT_MONEY, store.SELECT_LATE, store.SELECT_REFUNDS)
    found: dict[str, dict[tuple[int, str], Counter[str]]] = {text: {} for text in statements}
    for shard in shards.all:
        async with snapshot(shard) as connection:
            for statement in statements:
                for row in await fetch_all(connection, statement, sales):
                    sums = dict(row)
                    key = (sums.pop("sale"), sums.pop("currency"))
                    found[statement].setdefault(key, Counter()).update(sums)
    return {
        statement: [
            {"sale": sale, "currency": currency, **sums}
            for (sale, currency), sums in sorted(by_key.items())
        ]
        for statement, by_key in found.items()
    }


def _subject(names: dict[int, str], row: Row) -> str:
    name = names.get(row["sale"], f"sale number {row['sale']}")
    return f"{name} / {row['currency']}"


def _judge_money(subject: str, row: Row) -> Equation:
    return equal(
        "I12",
        subject,
        ("captured - refunds asked for", row["kept"]),
        ("total - refunded of paid orders", row["due"]),
    )


def _judge_late(subject: str, row: Row) -> Equation:
    return equal(
        "I13",
        subject,
        ("captured late", row["captured"]),
        ("refunds of late payments", row["refunded"]),
    )


def _judge_refunds(subject: str, row: Row) -> Equation:
    left, _, right = _SENT_BACK
    if row["under_way"]:
        note = f"{row['under_way']} refunds are under way"
        return unjudged("I12", subject, _SENT_BACK, Doubt.IN_MOTION, note)
    return equal("I12", subject, (left, row["succeeded"]), (right, row["asked"]))


async def _judge_captures(shards: Shards) -> Equation:
    """Ask whether a provider's payment was recorded twice, on whatever shards."""
    counts: Counter[int] = Counter()
    for shard in shards.all:
        async with snapshot(shard) as connection:
            (row,) = await fetch_all(connection, store.SELECT_CAPTURE_HASHES)
        counts.update(row["hashes"])
    twice = [code for code, times in counts.items() if times > 1]
    examples = await _captures_of(shards, twice) if twice else []
    what = "provider's payments recorded more than once"
    return none_of("I12", "payments", what, len(twice), examples)


async def _captures_of(shards: Shards, hashes: list[int]) -> list[str]:
    examples: list[str] = []
    for shard in shards.all:
        async with snapshot(shard) as connection:
            rows = await fetch_all(connection, store.SELECT_CAPTURES_BY_HASH, hashes, EXAMPLES_MAX)
        examples += [
            f"{row['provider']} {row['provider_number']} by attempt {row['number']}" for row in rows
        ]
    return sorted(examples)[:EXAMPLES_MAX]
