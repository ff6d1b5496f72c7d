"""`doorbuster audit` and `doorbuster queue`, over real stores, by their output and exit codes."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from app.cli.audit import audit
from app.cli.exits import Exit
from app.cli.queue import queue
from tests.stores.paid_sale import PaidSale

NOWHERE = "postgresql://127.0.0.1:1/nowhere"


@pytest.fixture
async def sale(shards, redis, deployment):
    sale = PaidSale(shards, redis, deployment)
    await sale.write()
    return sale


@pytest.fixture
def run(stores, shard_urls, ledger_url, tmp_path, monkeypatch):
    """Run a command against the test's stores, outside of any project's folder."""
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments, redis=stores.redis_url, shards=shard_urls, ledger=ledger_url):
        where = ["--redis-url", redis, "--ledger-url", ledger]
        for url in shards:
            where += ["--shard-url", url]
        return in_thread(lambda: CliRunner().invoke(command, [*where, *arguments]))

    return run


def in_thread(work):
    """A command brings its own event loop, which the test's thread already has."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.mark.usefixtures("sale")
def test_a_healthy_sale_is_told_equation_by_equation(run):
    result = run(audit)
    assert result.exit_code == Exit.DONE
    lines = result.stdout.splitlines()
    assert any(
        line.split(maxsplit=4)[:4] == ["holds", "I1", "sale", "spring"]
        and line.endswith("stock 100 = pool 40 + in transit 0 + granted 60 (100)")
        for line in lines
    )
    assert all(line.startswith("holds") for line in lines)
    assert result.stderr.strip().endswith("equations hold")


async def test_a_break_exits_3_and_shows_the_counter_example(sale, run):
    await sale.execute("UPDATE sales SET pool = 41")
    result = run(audit, "--sale", "spring")
    assert result.exit_code == Exit.BROKEN
    assert "BROKEN       I1" in result.stdout
    assert "pool is 41, by grants and credits it should be 40" in result.stdout
    assert "1 broken" in result.stderr


@pytest.mark.usefixtures("sale")
def test_json_is_one_document(run):
    result = run(audit, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == Exit.DONE
    assert document["verdict"] == "holds"
    assert document["counts"]["broken"] == 0
    assert {"I1", "I3", "I12", "I14", "I16", "I20"} <= {
        equation["invariant"] for equation in document["equations"]
    }


async def test_a_draining_bucket_exits_4(sale, run):
    await sale.execute("UPDATE bucket_leases SET state = 'draining'")
    assert run(audit).exit_code == Exit.INCONCLUSIVE


@pytest.mark.usefixtures("sale")
@pytest.mark.parametrize("away", [{"redis": "redis://127.0.0.1:1"}, {"ledger": NOWHERE}])
def test_a_silent_store_exits_5_and_the_rest_is_judged(run, away):
    result = run(audit, **away)
    assert result.exit_code == Exit.UNREACHABLE
    assert "holds        I1" in result.stdout


async def test_a_break_outweighs_a_silent_store(sale, run):
    await sale.execute("UPDATE sales SET pool = 41")
    assert run(audit, ledger=NOWHERE).exit_code == Exit.BROKEN


@pytest.mark.usefixtures("sale")
def test_a_silent_shard_exits_5_and_the_ledger_is_judged(run, shard_urls):
    result = run(audit, shards=[shard_urls[0], NOWHERE])
    assert result.exit_code == Exit.UNREACHABLE
    assert "unreachable" in result.stderr
    assert "holds        I14" in result.stdout


@pytest.mark.usefixtures("sale")
def test_no_shard_that_answers_exits_5(run):
    result = run(audit, shards=[NOWHERE, NOWHERE])
    assert result.exit_code == Exit.UNREACHABLE
    assert "shard" in result.stderr


@pytest.mark.usefixtures("sale")
def test_an_unknown_sale_is_a_mistake(run):
    result = run(audit, "--sale", "autumn")
    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    assert "no such sale" in result.stderr


def test_nothing_that_runs_exits_5(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(audit, [])
    assert result.exit_code == Exit.UNREACHABLE
    assert "doorbuster up" in result.stderr


async def test_the_queue_is_a_table(sale, run):
    await sale.set_state(orders_placed=12)
    result = run(queue)
    assert result.exit_code == Exit.DONE
    assert "spring" in result.stdout
    assert "7 orders wait" in result.stdout
    assert "1 dead letters: order" in result.stdout


@pytest.mark.usefixtures("sale")
def test_the_queue_is_a_document(run):
    document = json.loads(run(queue, "--json").stdout)
    assert [one["bucket"] for one in document["queues"]] == [0, 1]
    assert document["totals"]["dead_letters"] == {"order": 1}


@pytest.mark.usefixtures("sale")
def test_the_queue_of_the_other_shards_is_shown(run, shard_urls):
    result = run(queue, shards=[NOWHERE, shard_urls[1]])
    assert result.exit_code == Exit.UNREACHABLE
    assert "shard 0 does not answer" in result.stdout
    assert "spring" in result.stdout


def test_a_document_cannot_be_watched():
    assert CliRunner().invoke(queue, ["--watch", "--json"]).exit_code == Exit.USAGE
