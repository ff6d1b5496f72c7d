"""What the doctor says of real stores, and with which exit code."""

import json

import pytest
from click.testing import CliRunner

from app.cli.doctor import doctor
from app.cli.exits import Exit
from app.cli.finding import Health
from app.cli.store_checks import check_database, check_readiness, check_redis, check_scripts
from app.storage.redis import open_redis
from app.storage.shards import Database, DatabaseSettings
from tests.stores.audited_sale import AuditedSale

NOBODY = "redis://127.0.0.1:1"
NOWHERE = "postgresql://127.0.0.1:1/nowhere"


async def test_the_stores_of_the_tests_are_well(redis, shards, ledger_database):
    assert (await check_redis(redis)).health is Health.OK
    assert (await check_database(shards.directory, "shard 0", "shard")).health is Health.OK
    assert (await check_database(ledger_database, "ledger", "ledger")).health is Health.OK


async def test_a_redis_that_may_lose_orders_fails(redis):
    await redis.config_set("appendfsync", "everysec")
    try:
        finding = await check_redis(redis)
    finally:
        await redis.config_set("appendfsync", "always")
    assert (finding.health, finding.is_away) == (Health.FAIL, False)
    assert "appendfsync is everysec, must be always" in finding.found


async def test_a_database_that_is_not_migrated_fails(stores):
    with stores.empty_databases(1) as (url,):
        database = Database(url, DatabaseSettings())
        finding = await check_database(database, "shard 0", "shard")
        await database.close()
    assert (finding.health, finding.fix) == (Health.FAIL, "doorbuster migrate")


async def test_a_database_that_may_lose_orders_fails(shard_urls):
    forgetful = f"{shard_urls[0]}?options=-csynchronous_commit%3Doff"
    database = Database(forgetful, DatabaseSettings())
    finding = await check_database(database, "shard 0", "shard")
    await database.close()
    assert finding.found == "synchronous_commit is off"


async def test_scripts_that_a_server_has_lost_are_told(redis, shards, deployment):
    sale = AuditedSale(shards, redis, deployment)
    await sale.write()
    await sale.execute("UPDATE bucket_leases SET script_sha = repeat('0', 40)")
    finding = await check_scripts(redis, list(shards.all))
    assert finding.found == "1 of 1 are not loaded"


async def test_what_does_not_answer_is_away():
    redis = open_redis(NOBODY, client_name="test")
    database = Database(NOWHERE, DatabaseSettings())
    findings = [
        await check_redis(redis),
        await check_database(database, "ledger", "ledger"),
        await check_readiness("http://127.0.0.1:1"),
    ]
    await redis.aclose()
    await database.close()
    assert [finding.is_away for finding in findings] == [True] * 3


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(doctor, arguments)


def test_a_machine_on_which_nothing_runs_yet_is_fine(run):
    result = run()
    assert result.exit_code == Exit.DONE
    assert "fix: doorbuster up" in result.stdout


def test_given_stores_are_looked_at(run, stores, shard_urls, ledger_url):
    where = ["--redis-url", stores.redis_url, "--ledger-url", ledger_url]
    for url in shard_urls:
        where += ["--shard-url", url]
    result = run(*where, "--json")
    document = json.loads(result.stdout)
    assert [finding for finding in document["findings"] if finding["health"] == "FAIL"] == []
    assert (result.exit_code, document["exit_code"]) == (Exit.DONE, 0)
    looked_at = {finding["what"] for finding in document["findings"]}
    assert {"redis", "shard 0", "shard 1", "ledger", "scripts"} <= looked_at


def test_a_store_that_is_away_exits_5(run):
    result = run("--redis-url", NOBODY, "--shard-url", NOWHERE, "--ledger-url", NOWHERE)
    assert result.exit_code == Exit.UNREACHABLE
    assert "FAIL  redis" in result.stdout
