"""
Every promise that the stores can prove, in one list.

Settlement is the last stage, so it alone may ask all of them. `doorbuster audit`
and GET /admin/v1/audit print the same.
"""

from collections.abc import Awaitable, Sequence

from redis.asyncio import Redis

from app.inventory.queues import read_all_queues
from app.kernel.equation import Doubt, Equation, Relation, unjudged
from app.kernel.errors import Unavailable
from app.orders.audit import audit_orders
from app.orders.groups.audit import audit_groups
from app.payments.audit import audit_payments
from app.settlement.audit import audit_ledger
from app.settlement.audit_postings import audit_postings, facts_wait
from app.settlement.house.audit import audit_house
from app.storage.shards import Database, Shards


async def audit_all(
    shards: Shards, redis: Redis, ledger: Database, deployment: str, sale: str | None = None
) -> list[Equation]:
    """
    Judge everything, reading only.

    Args:
        shards: with the map read.
        redis: a client that may read every key.
        ledger: the ledger database.
        deployment: the first part of every Redis key.
        sale: a public id, or None for all; the ledger is always judged whole.

    Returns:
        Every equation; a store that does not answer leaves its own unjudged.

    Raises:
        UnknownSale: there is none of that id.
    """
    return [
        *await _unless_away("orders", audit_orders(shards, redis, deployment, sale)),
        *await _unless_away("groups", audit_groups(shards, redis, deployment, sale)),
        *await _unless_away("payments", audit_payments(shards, sale)),
        *await _unless_away("ledger", _audit_books(shards, redis, ledger, deployment)),
        *await _unless_away("house", audit_house(ledger)),
        *await _unless_away("ledger and shards", audit_postings(shards, ledger)),
    ]


async def _audit_books(
    shards: Shards, redis: Redis, ledger: Database, deployment: str
) -> list[Equation]:
    """Judge the ledger; it is at rest when nothing can be sold and no fact waits."""
    open_buckets = (await read_all_queues(shards, redis, deployment)).queues
    live = bool(open_buckets) or await facts_wait(shards)
    return await audit_ledger(ledger, live=live)


async def _unless_away(subject: str, judging: Awaitable[Sequence[Equation]]) -> Sequence[Equation]:
    try:
        return await judging
    except Unavailable as error:
        sides = ("invariants judged", Relation.EQUAL, "all")
        return [unjudged("all", subject, sides, Doubt.UNREACHABLE, str(error))]
