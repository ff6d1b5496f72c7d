import asyncio
import socket

import pytest

from app.kernel.errors import BadConfiguration, LedgerUnavailable, ShardUnavailable
from app.storage.migrate import migrate_all, read_migrations
from app.storage.shards import DatabaseSettings, Shards
from tests.real_stores import session

SHARD_VERSIONS = [migration.version for migration in read_migrations("shard")]
LEDGER_VERSIONS = [migration.version for migration in read_migrations("ledger")]


@pytest.fixture
def empty(stores):
    with stores.empty_databases(4) as urls:
        yield urls


def nobody_there() -> str:
    """Return a URL whose port was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"postgresql://nobody@127.0.0.1:{probe.getsockname()[1]}/nothing"


async def tables(url: str) -> set[str]:
    async with session(url) as database:
        rows = await database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row["tablename"] for row in rows}


async def test_migrating_twice_applies_everything_once(empty):
    *shard_urls, ledger_url, _ = empty

    first = await migrate_all(shard_urls, ledger_url, "d")
    second = await migrate_all(shard_urls, ledger_url, "d")

    assert [state.version for state in first] == [*SHARD_VERSIONS * 2, *LEDGER_VERSIONS]
    assert [state.applied for state in first] == [False] * len(first)
    assert [state.applied for state in second] == [True] * len(first)
    assert "orders" in await tables(shard_urls[1])
    assert "ledger_entries" in await tables(ledger_url)


async def test_a_dry_run_tells_and_touches_nothing(empty):
    shard_url, ledger_url, *_ = empty

    told = await migrate_all([shard_url], ledger_url, "d", dry_run=True)

    assert [state.applied for state in told] == [False] * len(told)
    assert await tables(shard_url) == await tables(ledger_url) == set()


async def test_migrators_that_start_together_wait_for_each_other(empty):
    *shard_urls, ledger_url, _ = empty

    runs = await asyncio.gather(*(migrate_all(shard_urls, ledger_url, "d") for _ in range(4)))

    for states in zip(*runs, strict=True):
        assert [state.applied for state in states].count(False) == 1


async def test_a_file_that_changed_after_it_was_applied_stops_the_start(
    shard_urls, ledger_url, deployment
):
    async with session(shard_urls[1]) as shard:
        await shard.execute("UPDATE schema_migrations SET checksum = 'another text'")

    with pytest.raises(BadConfiguration, match="changed since it was applied") as refused:
        await migrate_all(shard_urls, ledger_url, deployment)

    assert refused.value.fields["database"] == "shard 1"


async def test_a_database_of_a_newer_program_stops_the_start(shard_urls, ledger_url, deployment):
    async with session(ledger_url) as ledger:
        await ledger.execute("INSERT INTO schema_migrations VALUES ('9999_future', 'text')")

    with pytest.raises(BadConfiguration, match="newer than this program") as refused:
        await migrate_all(shard_urls, ledger_url, deployment)

    assert refused.value.fields["migration"] == "9999_future"


async def test_shards_in_the_wrong_order_stop_the_start(shard_urls, ledger_url, deployment):
    with pytest.raises(BadConfiguration, match="place 0 holds shard 1"):
        await migrate_all(shard_urls[::-1], ledger_url, deployment)


async def test_a_shard_of_another_deployment_stops_the_start(shard_urls, ledger_url):
    with pytest.raises(BadConfiguration, match="place 0 holds shard 0 of t-"):
        await migrate_all(shard_urls, ledger_url, "somebody-else")


async def test_a_shard_left_out_stops_the_start(shard_urls, ledger_url, deployment):
    with pytest.raises(BadConfiguration, match="the shard map knows 2 shards, 1 are configured"):
        await migrate_all(shard_urls[:1], ledger_url, deployment)


async def test_a_shard_added_is_used_by_the_sales_to_come(
    shard_urls, ledger_url, deployment, empty
):
    async with session(shard_urls[0]) as directory:
        await directory.execute(
            "INSERT INTO sale_directory (id, sale, home_shard, idempotency_key, fingerprint)"
            " VALUES ('eleven', 11, 1, 'key', '')"
        )

    await migrate_all([*shard_urls, empty[0]], ledger_url, deployment)

    shards = Shards([*shard_urls, empty[0]], DatabaseSettings())
    await shards.read_map()
    assert [shards.map.home(sale) for sale in (9, 10, 11)] == [1, 0, 1]
    assert [shards.map.home(sale) for sale in (12, 13, 14)] == [0, 1, 2]
    async with shards.directory.connection() as directory:
        assert await directory.fetchval("SELECT nextval('sale_numbers')") == 12
    await shards.close()


async def test_every_shard_is_given_the_map(shard_urls, ledger_url, deployment, empty):
    async with session(shard_urls[1]) as other:
        await other.execute("DELETE FROM shard_map")
    await migrate_all([*shard_urls, empty[0]], ledger_url, deployment)

    maps = []
    for url in (*shard_urls, empty[0]):
        async with session(url) as one:
            maps.append(await one.fetch("SELECT * FROM shard_map ORDER BY first_sale"))
    assert maps == [[(1, 3)]] * 3


async def test_a_shard_with_another_map_stops_the_start(shard_urls, ledger_url, deployment):
    async with session(shard_urls[1]) as other:
        await other.execute("INSERT INTO shard_map VALUES (7, 2)")
    with pytest.raises(BadConfiguration, match="its shard map is another one"):
        await migrate_all(shard_urls, ledger_url, deployment)


async def test_a_database_that_is_not_there_is_unavailable(shard_urls, ledger_url, deployment):
    with pytest.raises(ShardUnavailable):
        await migrate_all([nobody_there()], ledger_url, deployment)
    with pytest.raises(LedgerUnavailable):
        await migrate_all(shard_urls, nobody_there(), deployment)
