"""The books over HTTP: read by viewers, and never a 500 for what they ask."""

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from app.settlement.books import Books
from app.settlement.fact import read_fact
from app.settlement.posting import post_facts
from app.settlement.routes import admin_endpoints
from app.settlement.store import post_transfers
from app.storage.shards import Database, DatabaseSettings
from app.web.query import encode_cursor
from tests.contract.web_listener import get, line_to, listening

VIEWER = "Authorization: Bearer viewer"
ACCOUNTS = "/admin/v1/ledger/accounts"
TRIAL_BALANCE = "/admin/v1/ledger/trial-balance"
MOMENT = datetime(2026, 11, 11, tzinfo=UTC)


def capture(number, merchant):
    payload = {
        "order_id": f"A{number}",
        "attempt": f"A{number}01",
        "provider": "sandbox",
        "merchant": merchant,
        "amount_minor": 100,
        "currency": "CNY",
        "captured_at": "2026-11-11T00:00:00Z",
    }
    return read_fact("payment_captured", payload, MOMENT)


@pytest.fixture
async def ledger(ledger_database):
    facts = [capture(number, f"店/{number % 2}") for number in range(4)]
    async with ledger_database.transaction() as connection:
        await post_transfers(connection, post_facts(facts, [], 1300))
    return ledger_database


@asynccontextmanager
async def asking(ledger):
    async with listening(admin_endpoints(Books(ledger))) as listener:

        async def ask(path, *headers):
            async with line_to(listener) as line:
                line.send(get(path, *(headers or (VIEWER,))))
                status, _, body = await line.reply()
                return status, json.loads(body)

        yield ask


async def test_the_trial_balance_sums_to_zero(ledger):
    async with asking(ledger) as ask:
        status, body = await ask(f"{TRIAL_BALANCE}?currency=CNY")
        (balance,) = body["items"]
        assert status == 200
        assert balance["balanced"] is True
        assert (balance["debits_minor"], balance["credits_minor"]) == (400, 400)
        assert balance["difference_minor"] == 0
        assert {"code": "order.clearing", "debit_minor": 0, "credit_minor": 0} in balance["lines"]
        assert await ask(TRIAL_BALANCE) == (200, body)
        assert await ask(f"{TRIAL_BALANCE}?currency=USD") == (200, {"items": []})


async def test_accounts_and_entries_are_read_page_by_page(ledger):
    async with asking(ledger) as ask:
        seen, cursor = [], ""
        while cursor is not None:
            _, page = await ask(f"{ACCOUNTS}?limit=3{cursor and f'&cursor={cursor}'}")
            seen += [account["code"] for account in page["items"]]
            cursor = page["next"]
        assert len(seen) == 4
        assert seen == sorted(seen)
        _, first = await ask(f"{ACCOUNTS}/order.clearing/entries?limit=5")
        _, rest = await ask(f"{ACCOUNTS}/order.clearing/entries?limit=5&cursor={first['next']}")
        entries = first["items"] + rest["items"]
        assert [entry["number"] for entry in entries] == [8, 7, 6, 5, 4, 3, 2, 1]
        assert rest["next"] is None
        assert entries[0]["transfer_id"].startswith("trf_")
        assert entries[0]["business_id"] in {"A0", "A1", "A2", "A3"}


async def test_an_account_is_found_whatever_its_merchant_is_called(ledger):
    async with asking(ledger) as ask:
        status, body = await ask(f"{ACCOUNTS}/merchant.%E5%BA%97%2F1.payable/entries")
        assert (status, len(body["items"])) == (200, 2)
        assert [entry["balance_after_minor"] for entry in body["items"]] == [200, 100]


#   path                                             status  code
REFUSED = f"""
    {ACCOUNTS}/no.such/entries                       404     not_found
    {ACCOUNTS}/%00/entries                           404     not_found
    {ACCOUNTS}/%FF/entries                           404     not_found
    {ACCOUNTS}/order.clearing/entries?limit=0        422     validation_failed
    {ACCOUNTS}/order.clearing/entries?limit=101      422     validation_failed
    {ACCOUNTS}/order.clearing/entries?cursor=zzz     422     validation_failed
    {ACCOUNTS}/order.clearing/entries?cursor=@huge   422     validation_failed
    {ACCOUNTS}?cursor=@nul                           422     validation_failed
    {ACCOUNTS}?currency=cny                          422     validation_failed
    {ACCOUNTS}?unknown=1                             422     validation_failed
    {TRIAL_BALANCE}?currency=CN%00                   422     validation_failed
    {TRIAL_BALANCE}?limit=1                          422     validation_failed
"""
CURSORS = {"@huge": encode_cursor(2**64 - 1), "@nul": encode_cursor("\x00")}


async def test_a_request_that_makes_no_sense_is_refused(ledger):
    async with asking(ledger) as ask:
        for line in REFUSED.strip().splitlines():
            path, status, code = line.split()
            for name, cursor in CURSORS.items():
                path = path.replace(name, cursor)
            answered, body = await ask(path)
            assert (path, answered, body["code"]) == (path, int(status), code)


async def test_only_the_house_reads_the_books(ledger):
    async with asking(ledger) as ask:
        for path in (ACCOUNTS, TRIAL_BALANCE, f"{ACCOUNTS}/order.clearing/entries"):
            assert (await ask(path, "Authorization: Bearer operator"))[0] == 200
            assert (await ask(path, "Authorization: Bearer merchant:m1"))[0] == 403
            assert (await ask(path, "Authorization: Bearer nobody"))[0] == 401


async def test_a_ledger_that_is_away_is_said_to_be():
    away = Database("postgresql://nobody@127.0.0.1:1/ledger", DatabaseSettings())
    async with asking(away) as ask:
        status, body = await ask(TRIAL_BALANCE)
        assert (status, body["code"], body["retryable"]) == (503, "shard_unavailable", True)
