"""
Turn the outbox facts of the shards into transfers.

The rows of one shard are locked, posted to the ledger, and marked done. The
ledger commits first: a crash between the two commits leaves facts that are
posted and not marked, and the next pass finds every transfer already there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.kernel.errors import Conflict, ShardUnavailable
from app.kernel.failpoints import failpoint
from app.settlement.errors import UnreadableFact
from app.settlement.fact import Fact, read_fact
from app.settlement.outbox import OutboxRow, mark_posted, park_fact, take_facts
from app.settlement.posting import post_facts
from app.settlement.store import lock_orders, post_transfers, read_reversals
from app.storage.shards import Connection, Database, Shard, Shards


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementSettings:
    """How facts become transfers."""

    batch_facts_max: int = 500  # facts in one ledger transaction; docs/decisions/0003-ledger.md
    vat_rate_basis_points: int = 1_300  # on our own goods: 13 %, the general rate in China

    def __post_init__(self) -> None:
        assert 1 <= self.batch_facts_max <= 5_000
        assert 0 <= self.vat_rate_basis_points < 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PostReport:
    """What one pass did."""

    facts_posted: int = 0
    facts_parked: int = 0
    transfers_new: int = 0

    def __add__(self, other: "PostReport") -> "PostReport":
        return PostReport(
            facts_posted=self.facts_posted + other.facts_posted,
            facts_parked=self.facts_parked + other.facts_parked,
            transfers_new=self.transfers_new + other.transfers_new,
        )


async def post_once(shards: Shards, ledger: Database, settings: SettlementSettings) -> PostReport:
    """
    Post one batch of each shard.

    A shard that does not answer keeps no other shard waiting.

    Raises:
        ShardUnavailable: at least one shard did not answer; the others were served.
        LedgerUnavailable: the ledger did not answer; the facts stay where they are.
    """
    report = PostReport()
    away: ShardUnavailable | None = None
    for shard in shards.all:
        try:
            report += await post_shard(shard, ledger, settings)
        except ShardUnavailable as error:
            away = error
    if away is not None:
        raise away
    return report


async def post_shard(shard: Shard, ledger: Database, settings: SettlementSettings) -> PostReport:
    """
    Post one batch of one shard's facts.

    Safe to repeat and to run twice at once: a fact is posted once, whoever
    crashes where.

    Raises:
        ShardUnavailable, LedgerUnavailable: no answer; the facts will be taken again.
    """
    async with shard.transaction() as connection:
        rows = await take_facts(connection, settings.batch_facts_max)
        if not rows:
            return PostReport()
        readable, parked = await _read(connection, rows)
        report = PostReport(facts_parked=parked)
        if readable:
            report += await _post_or_halve(connection, ledger, readable, settings)
        failpoint("poster.before_commit")
    failpoint("poster.after_commit")
    return report


async def _read(
    connection: Connection,
    rows: Iterable[OutboxRow],
) -> tuple[list[tuple[OutboxRow, Fact]], int]:
    """Read the rows; park those that no rule understands, and count them."""
    readable, parked = [], 0
    for row in rows:
        try:
            readable.append((row, read_fact(row.kind, row.payload, row.created_at)))
        except UnreadableFact as error:
            await park_fact(connection, row, error)
            parked += 1
    return readable, parked


async def _post_or_halve(
    connection: Connection,
    ledger: Database,
    readable: Sequence[tuple[OutboxRow, Fact]],
    settings: SettlementSettings,
) -> PostReport:
    """
    Post facts, and what is refused together by halves, down to the one that the books refuse.

    What was posted is marked at once: the shard ends a session that says nothing for some
    seconds, and a batch that takes longer than that could never be finished.
    """
    try:
        transfers_new = await _post(ledger, [fact for _, fact in readable], settings)
    except Conflict as error:
        if len(readable) == 1:
            await park_fact(connection, readable[0][0], error)
            return PostReport(facts_parked=1)
        half = len(readable) // 2
        first = await _post_or_halve(connection, ledger, readable[:half], settings)
        return first + await _post_or_halve(connection, ledger, readable[half:], settings)
    failpoint("poster.after_ledger")
    await mark_posted(connection, [row for row, _ in readable])
    return PostReport(facts_posted=len(readable), transfers_new=transfers_new)


async def _post(ledger: Database, facts: Sequence[Fact], settings: SettlementSettings) -> int:
    """Post facts in one ledger transaction; return how many transfers were new."""
    taking_back = {fact.refund.order_id for fact in facts if fact.takes_back_tax}
    async with ledger.transaction() as connection:
        reversals = []
        if taking_back:
            await lock_orders(connection, taking_back)
            reversals = await read_reversals(connection, taking_back)
        transfers = post_facts(facts, reversals, settings.vat_rate_basis_points)
        return await post_transfers(connection, transfers)
