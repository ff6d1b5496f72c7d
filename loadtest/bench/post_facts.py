"""
Measure the ledger alone: facts that lie in an outbox, posted to the end.

    python -m loadtest.bench.post_facts --facts 20000 --batch 500 --posters 1

Embedded stores in a temporary folder, `fsync` on. Half of what is printed is
time, half is processor time per transfer, which is what a busy machine leaves
comparable.
"""

import asyncio
import platform
import tempfile
import time
from pathlib import Path
from typing import Final

import click
import uvloop

from app.embedded.stores import EmbeddedStores
from app.settlement.audit import audit_ledger
from app.settlement.poster import PostReport, SettlementSettings, post_shard
from app.storage.migrate import migrate_all
from app.storage.shards import Database, DatabaseSettings, Shard

# One merchant, one provider: every fact meets on the same accounts.
INSERT_FACTS: Final = """
INSERT INTO outbox (kind, business_id, payload)
SELECT 'payment_captured', attempt, jsonb_build_object(
    'order_id', left(attempt, 26), 'attempt', attempt, 'provider', 'sandbox',
    'merchant', 'm1', 'sale', 1, 'amount_minor', 8880, 'currency', 'CNY',
    'captured_at', '2026-11-11T00:00:00.000+00:00')
FROM generate_series(1, $1::int) AS number
CROSS JOIN LATERAL (SELECT lpad(number::text, 26, '0') || '01' AS attempt) AS named"""


@click.command()
@click.option("--facts", default=20_000, show_default=True, help="Captures; two transfers each.")
@click.option("--batch", default=500, show_default=True, help="Facts in one transaction.")
@click.option("--posters", default=1, show_default=True, help="Posters at once.")
def main(facts: int, batch: int, posters: int) -> None:
    """Post facts and print how fast it went."""
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_run(Path(folder), facts, SettlementSettings(batch_facts_max=batch), posters))


async def _run(folder: Path, facts: int, settings: SettlementSettings, posters: int) -> None:
    async with EmbeddedStores(folder, with_valkey=False, discard=True) as stores:
        await migrate_all(stores.shard_urls, stores.ledger_url, "bench")
        shard = Shard(0, stores.shard_urls[0], DatabaseSettings())
        ledger = Database(stores.ledger_url, DatabaseSettings())
        try:
            async with shard.connection() as connection:
                await connection.execute(INSERT_FACTS, facts)
            await _measure(shard, ledger, settings, posters)
        finally:
            await asyncio.gather(shard.close(), ledger.close())


async def _measure(
    shard: Shard, ledger: Database, settings: SettlementSettings, posters: int
) -> None:
    started, used = time.perf_counter(), time.process_time()
    reports = await asyncio.gather(*(_post_all(shard, ledger, settings) for _ in range(posters)))
    seconds, used = time.perf_counter() - started, time.process_time() - used
    transfers = sum(report.transfers_new for report in reports)
    balanced = all(equation.holds for equation in await audit_ledger(ledger, live=False))
    click.echo(
        f"{transfers} transfers in {seconds:.2f} s: {transfers / seconds:,.0f}/s; "
        f"python {used / transfers * 1e6:.0f} us of processor each; "
        f"batch {settings.batch_facts_max}, posters {posters}; audit holds: {balanced}; "
        f"Python {platform.python_version()}, PostgreSQL {await _version(ledger)}"
    )


async def _post_all(shard: Shard, ledger: Database, settings: SettlementSettings) -> PostReport:
    total = PostReport()
    while (report := await post_shard(shard, ledger, settings)).facts_posted:
        total += report
    return total


async def _version(ledger: Database) -> str:
    async with ledger.connection() as connection:
        return str(await connection.fetchval("SHOW server_version"))


if __name__ == "__main__":
    main()
