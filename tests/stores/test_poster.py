"""The poster with real stores: one fact that the books refuse holds up no other."""

from collections.abc import AsyncIterator

import pytest

from app.kernel.errors import ShardUnavailable
from app.orders.store import insert_outbox
from app.settlement.books import Books
from app.settlement.poster import PostReport, SettlementSettings, post_shard
from app.storage.shards import Database, DatabaseSettings, Shard, Shards
from tests.waiting import eventually

FACTS = 500
COUNT_WAITING = "SELECT count(*) FROM outbox WHERE done_at IS NULL"
SELECT_LETTERS = "SELECT reason, detail ->> 'business_id' AS business_id FROM dead_letters"


@pytest.fixture
async def hurried_shard(shard_urls: tuple[str, ...]) -> AsyncIterator[Shard]:
    """A shard that ends a session which is idle in a transaction for a quarter of a second."""
    opened = Shards(shard_urls, DatabaseSettings(idle_in_transaction_ms=250))
    await opened.read_map()
    yield opened.all[0]
    await opened.close()


def capture(number: int, amount_minor: int = 100) -> dict[str, object]:
    order_id = f"{number:026d}"
    return {
        "order_id": order_id,
        "attempt": f"{order_id}01",
        "provider": "sandbox",
        "merchant": "acme",
        "sale": 1,
        "amount_minor": amount_minor,
        "currency": "CNY",
        "captured_at": "2026-11-11T00:00:00.000+00:00",
    }


async def tell(shard: Shard, numbers: range, contradicting: int) -> None:
    """Leave one fact for each number, and amid them one that contradicts its neighbour."""
    async with shard.transaction() as connection:
        for number in numbers:
            fact = capture(number)
            await insert_outbox(connection, "payment_captured", str(fact["attempt"]), fact)
            if number == contradicting:
                other = capture(number, amount_minor=101)
                await insert_outbox(connection, "payment_captured", "contradiction", other)


async def test_one_refused_fact_of_a_batch_is_found_and_parked_in_time(
    hurried_shard: Shard, ledger_database: Database
) -> None:
    await tell(hurried_shard, range(FACTS), contradicting=FACTS // 3)

    settings = SettlementSettings(batch_facts_max=FACTS + 1)

    async def post() -> PostReport | None:
        try:
            return await post_shard(hurried_shard, ledger_database, settings)
        except ShardUnavailable:  # a machine as busy as that needs another pass, or two
            return None

    report: PostReport | None = await eventually(post)
    assert report is not None
    assert (report.facts_posted, report.facts_parked) == (FACTS, 1)
    async with hurried_shard.connection() as connection:
        assert await connection.fetchval(COUNT_WAITING) == 0
        letters = await connection.fetch(SELECT_LETTERS)
    assert [tuple(letter) for letter in letters] == [("IdempotencyMismatch", "contradiction")]
    (balance,) = await Books(ledger_database).read_trial_balance("CNY")
    assert {line.code: line.debit_minor - line.credit_minor for line in balance.lines} == {
        "provider.sandbox.receivable": 100 * FACTS,
        "order.clearing": 0,
        "merchant.acme.payable": -100 * FACTS,
    }
