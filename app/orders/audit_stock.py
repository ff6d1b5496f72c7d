"""
Stock and tickets as Postgres has them: I1, I2, I4, I5, I20; pure.

I1 spans databases that share no instant, and yet holds at any moment as it is
computed here. What was given out is known to the home shard alone (pool = total -
grants + credits), what arrived to the bucket's shard alone (granted = grants applied
- debits), each in one snapshot. Units in transit are the difference of the two
histories, so the sum is right however far apart they were read. That nothing was
applied which was never given out is asked by id, in an order of reading in which
the cause is always seen with its effect: applied grants before grants, credits
before debits.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from app.kernel.equation import Doubt, Equation, Relation, at_most, equal, none_of, unjudged
from app.orders.audit_store import Row
from app.storage.shards import Shards

_SEEN: tuple[str, Relation, str] = ("orders seen by the flush", Relation.EQUAL, "rows + letters")


def subject_of(row: Row) -> str:
    """Name a bucket for people; a bucket without a lease has only its sale's number."""
    name = row["sale_id"] or f"number {row['sale']}"
    return f"sale {name} / bucket {row['bucket']}"


def judge_stock(stock: Row, buckets: Sequence[Row], unfounded: Sequence[str]) -> list[Equation]:
    """
    Judge I1 of one sale.

    Args:
        stock: its row of SELECT_STOCK.
        buckets: its rows of SELECT_BUCKETS, from all shards.
        unfounded: grants applied or credits given that have no cause.
    """
    granted = sum(row["granted"] for row in buckets)
    arrived = sum(row["applied"] - row["debited"] for row in buckets)
    given_out = stock["issued"] - stock["credited"]
    moving = given_out - arrived
    odd = [*_odd_pool(stock), *_odd_buckets(buckets), *unfounded]
    subject = f"sale {stock['id']}"
    pool = stock["pool"]
    return [
        equal(
            "I1",
            subject,
            ("stock", stock["stock_total"]),
            (
                f"pool {pool} + in transit {moving} + granted {granted}",
                pool + moving + granted,
            ),
            broken=len(odd),
            counter_examples=odd,
        ),
        at_most("I1", subject, ("0", 0), ("pool", pool)),
    ]


def _odd_pool(stock: Row) -> list[str]:
    expected = stock["stock_total"] - stock["issued"] + stock["credited"]
    if stock["pool"] == expected:
        return []
    return [f"pool is {stock['pool']}, by grants and credits it should be {expected}"]


def _odd_buckets(buckets: Iterable[Row]) -> list[str]:
    return [
        f"bucket {row['bucket']} has {row['granted']} granted, "
        f"by grants and debits it should be {row['applied'] - row['debited']}"
        for row in buckets
        if row["granted"] != row["applied"] - row["debited"]
    ]


def judge_bucket(row: Row, lost: Sequence[str]) -> list[Equation]:
    """
    Judge I2 and the tickets of I5 for one bucket.

    Args:
        row: of SELECT_BUCKETS.
        lost: some of its tickets that ended nowhere.
    """
    subject = subject_of(row)
    equations = [
        equal("I2", subject, ("reserved", row["reserved"]), ("units held", row["held"])),
        at_most("I2", subject, ("reserved", row["reserved"]), ("granted", row["granted"])),
    ]
    if row["state"] == "open":
        rows, letters = row["rows_of_epoch"], row["letters_of_epoch"]
        seen = (_SEEN[0], row["orders_seen"])
        ended = (f"rows {rows} + letters {letters}", rows + letters)
        equations.append(equal("I5", subject, seen, ended, counter_examples=lost))
    elif row["state"] == "draining" and row["epoch"] > 0:
        note = "the bucket is draining"
        equations.append(unjudged("I5", subject, _SEEN, Doubt.RECOVERING, note))
    return equations


def tickets_are_missing(row: Row) -> bool:
    """Say whether the rows and letters of an open bucket fall short of what was flushed."""
    ended = row["rows_of_epoch"] + row["letters_of_epoch"]
    return bool(row["state"] == "open" and ended != row["orders_seen"])


def judge_places(shards: Shards, found: Mapping[int, Sequence[Row]]) -> list[Equation]:
    """
    Judge I20: each order, and each lease, on the shard its bucket maps to.

    Args:
        shards: with the map read.
        found: shard index -> its rows of SELECT_BUCKETS.
    """
    strays: defaultdict[str, list[str]] = defaultdict(list)
    counts: defaultdict[str, int] = defaultdict(int)
    for index, rows in found.items():
        for row in rows:
            name = subject_of(row).partition(" / ")[0]
            counts[name] += 0
            home = shards.map.of(row["sale"], row["bucket"])
            if home != index:
                counts[name] += max(1, row["orders"])
                strays[name].append(
                    f"{row['orders']} orders of bucket {row['bucket']} are on shard {index}, "
                    f"not on {home}"
                )
    what = "orders on another shard than their bucket's"
    return [none_of("I20", name, what, count, strays[name]) for name, count in counts.items()]


def judge_units(sale: str, units: Mapping[str, int], stock_total: int) -> list[Equation]:
    """
    Judge I4 of one sale.

    Args:
        sale: its subject.
        units: held, shipped and paid, summed over the shards before stock_total was read.
        stock_total: which only grows.
    """
    total = ("stock", stock_total)
    return [
        at_most("I4", sale, ("units held", units["held"]), total),
        at_most("I4", sale, ("units shipped", units["shipped"]), ("units paid", units["paid"])),
        at_most("I4", sale, ("units paid", units["paid"]), total),
    ]
