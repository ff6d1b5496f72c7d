"""`doorbuster settle` against a real ledger, as a person or a program calls it."""

import asyncio
import json
from datetime import UTC, datetime

import asyncpg
import pytest
from click.testing import CliRunner

from app.cli.settle import settle
from app.settlement.fact import read_fact
from app.settlement.posting import post_facts
from app.settlement.store import post_transfers

MOMENT = datetime(2026, 11, 11, tzinfo=UTC)
CAPTURE = {
    "order_id": "A",
    "attempt": "A01",
    "provider": "sandbox",
    "merchant": "",
    "amount_minor": 8880,
    "currency": "CNY",
    "captured_at": "2026-11-11T00:00:00Z",
}


def call(*arguments):
    """Call `doorbuster settle` with the arguments."""
    return CliRunner().invoke(settle, arguments)


async def post_one(url):
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        facts = [read_fact("payment_captured", CAPTURE, MOMENT)]
        await post_transfers(connection, post_facts(facts, [], 1300))
    await connection.close()


async def run(url, statement):
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


@pytest.fixture
def url(ledger_url):
    asyncio.run(post_one(ledger_url))
    return ledger_url


def test_the_trial_balance_is_a_table_for_people_and_a_document_for_programs(url):
    shown = call("trial-balance", "--ledger-url", url)
    assert shown.exit_code == 0
    assert "provider.sandbox.receivable" in shown.output
    assert "88.80 CNY" in shown.output
    told = json.loads(call("trial-balance", "--ledger-url", url, "--json").stdout)
    assert told["items"][0]["balanced"] is True
    assert told["items"][0]["debits_minor"] == 8880


def test_accounts_are_listed(url):
    told = json.loads(call("accounts", "--ledger-url", url, "--json").stdout)
    assert [account["code"] for account in told["items"]] == [
        "order.clearing",
        "provider.sandbox.receivable",
        "revenue.net",
        "tax.output_vat",
    ]
    assert "10.22 CNY" in call("accounts", "--ledger-url", url, "--currency", "CNY").output


def test_books_that_do_not_balance_exit_3(url):
    asyncio.run(run(url, "UPDATE ledger_accounts SET debits_posted = debits_posted + 1"))
    shown = call("trial-balance", "--ledger-url", url)
    assert shown.exit_code == 3
    assert "DOES NOT BALANCE" in shown.output


def test_a_ledger_that_is_away_exits_5(tmp_path):
    gone = call("accounts", "--ledger-url", "postgresql://nobody@127.0.0.1:1/ledger")
    assert gone.exit_code == 5
    nothing_runs = call("accounts", "--data-dir", str(tmp_path))
    assert nothing_runs.exit_code == 5
    assert "doorbuster up" in nothing_runs.output
