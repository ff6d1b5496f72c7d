"""The ledger's own figure: facts in an outbox, posted to the end."""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from app.embedded.stores import EmbeddedStores
from app.settlement.audit import audit_ledger
from app.settlement.poster import SettlementSettings, post_shard
from app.storage.migrate import migrate_all
from app.storage.shards import Database, DatabaseSettings, Shard
from loadtest.bench.cpu import read_cpu
from loadtest.bench.measurement import Measurement
from loadtest.bench.post_facts import INSERT_FACTS
from loadtest.bench.rig import Rig

FACTS: Final = 20_000  # captures of one merchant; two transfers each


async def measure_ledger(rig: Rig) -> None:
    """Measure (j): transfers posted a second, by one poster, on stores of their own."""
    with tempfile.TemporaryDirectory(prefix="doorbuster-bench-") as folder:
        async with EmbeddedStores(Path(folder), with_valkey=False, discard=True) as stores:
            await migrate_all(stores.shard_urls, stores.ledger_url, "bench")
            shard = Shard(0, stores.shard_urls[0], DatabaseSettings())
            ledger = Database(stores.ledger_url, DatabaseSettings())
            try:
                rig.note(await _post(shard, ledger, stores.pids["postgres"]))
            finally:
                await shard.close()
                await ledger.close()


async def _post(shard: Shard, ledger: Database, postgres: int) -> Measurement:
    async with shard.connection() as connection:
        await connection.execute(INSERT_FACTS, FACTS)
    groups = {"worker": (os.getpid(),), "postgres": (postgres,)}
    before, began, transfers = read_cpu(groups), time.monotonic(), 0
    while (report := await post_shard(shard, ledger, SettlementSettings())).facts_posted:
        transfers += report.transfers_new
    seconds, used = time.monotonic() - began, read_cpu(groups).since(before)
    broken = [one for one in await audit_ledger(ledger, live=False) if one.holds is False]
    return Measurement(
        variant="j",
        per_second=transfers / seconds,
        counted="transfers",
        seconds=seconds,
        answers={"transfers": transfers},
        cpu_us={name: one / transfers * 1e6 for name, one in used.used.items()},
        cores={
            **{name: one / seconds for name, one in used.used.items()},
            "other": max(0.0, used.busy - sum(used.used.values())) / seconds,
        },
        generator_cores=0.0,
        broken=[f"{one.invariant} {one.subject}" for one in broken],
        is_audited=True,
    )
