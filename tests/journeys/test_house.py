"""Paying without a gateway, over HTTP and by the command that operators type."""

import csv
import json
import subprocess

import pytest

from tests.journeys.service import PROGRAM
from tests.journeys.shop import new_key
from tests.waiting import eventually

PRICE = 1_999


@pytest.fixture
async def sale(shop):
    return await shop.open_sale(price_minor=PRICE, limit_per_shopper=9)


@pytest.fixture
def buyer():
    return f"buyer-{new_key()[:8]}"


async def start(shop, sale, buyer, provider):
    order_id = (await shop.buy(sale, buyer))["order_id"]
    started = await shop.start_payment(order_id, buyer, provider=provider, product="direct")
    return order_id, started


async def top_up(shop, buyer, amount_minor):
    body = {
        "shopper": buyer, "amount_minor": amount_minor, "currency": "CNY", "reason": "gift",
    }  # fmt: skip
    answer = await shop.operate("POST", "/balances/top-ups", body)
    assert answer.status == 201, answer
    return answer.body["balance_id"]


async def refund(shop, order_id):
    body = {"amount_minor": PRICE, "reason": "damaged"}
    answer = await shop.operate("POST", f"/orders/{order_id}/refunds", body)
    assert answer.status == 201, answer
    return answer.body["refund_id"]


async def until_refunded(shop, order_id, buyer):
    async def is_so():
        refunds = (await shop.order(order_id, buyer)).body["refunds"]
        return [one["status"] for one in refunds] == ["succeeded"]

    await eventually(is_so)


async def test_a_balance_pays_is_too_low_and_takes_money_back(shop, sale, buyer, promises):
    balance = await top_up(shop, buyer, PRICE)
    paid, started = await start(shop, sale, buyer, "balance")
    assert (started.status, started.body["status"]) == (201, "paid")
    _, refused = await start(shop, sale, buyer, "balance")
    assert (refused.status, refused.code) == (409, "balance_insufficient")
    await refund(shop, paid)
    await until_refunded(shop, paid, buyer)
    url = f"{shop.run.public}/v1/balances/{balance}/entries"
    entries = await shop.ask("GET", url, token=shop.token(buyer))
    amounts = [one["amount_minor"] for one in entries.body["items"]]
    assert amounts == [PRICE, -PRICE, PRICE]
    foreign = await shop.ask("GET", url, token=shop.token("eve"))
    assert (foreign.status, foreign.code) == (404, "not_found")
    await promises.hold()
    assert await shop.books_balance()


async def test_an_operator_confirms_by_proof_and_pays_back_by_hand(shop, sale, buyer, promises):
    order_id, started = await start(shop, sale, buyer, "offline")
    path = f"/payments/{started.body['payment_id']}/confirm"
    proof = {"reference": f"slip-{new_key()}", "note": "cash", "currency": "CNY"}
    short = await shop.operate("POST", path, {**proof, "amount_minor": PRICE - 1})
    assert (short.status, short.code) == (409, "amount_mismatch")
    told = await shop.operate("POST", path, {**proof, "amount_minor": PRICE})
    assert told.status == 200, told
    await shop.until_order(order_id, buyer, "paid")
    back = f"/refunds/{await refund(shop, order_id)}/paid-back"

    async def is_taken():
        answer = await shop.operate("POST", back, {"reference": "back-1", "note": "cash"})
        return answer.status == 200  # once the sender has brought it there

    await eventually(is_taken)
    await until_refunded(shop, order_id, buyer)
    await promises.hold()
    assert await shop.books_balance()


async def test_a_statement_is_imported_twice_and_pays_once(shop, sale, buyer, promises, tmp_path):
    order_id, started = await start(shop, sale, buyer, "transfer")
    code = started.body["action"]["params"]["remittance_code"]
    tag = new_key()[:12]
    file = tmp_path / "statement.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["reference", "amount_minor", "currency", "booked_at", "remark"])
        booked_at = "2026-01-02T03:04:05Z"
        writer.writerow([f"{tag}-1", PRICE, "CNY", booked_at, f"order {code}"])
        writer.writerow([f"{tag}-2", PRICE - 1, "CNY", booked_at, "rent"])
    outcomes = [bank(shop, "import", str(file), "--reason", "daily")["lines"] for _ in range(2)]
    assert outcomes[0] == outcomes[1]
    assert [one["outcome"] for one in outcomes[0]] == ["matched", "suspense"]
    await shop.until_order(order_id, buyer, "paid")
    waiting = bank(shop, "list", "--state", "suspense")["items"]
    assert f"{tag}-2" in [one["reference"] for one in waiting]
    sent = bank(shop, "send-back", f"{tag}-2", "--reference", "return-1", "--reason", "not ours")
    assert sent["state"] == "returned"
    await promises.hold()
    assert await shop.books_balance()


def bank(shop, *words):
    """Run `doorbuster bank …` against the service, and return what it printed."""
    where = ["--admin-url", shop.run.admin, "--admin-token", shop.run.admin_token, "--json"]
    command = [*PROGRAM, "bank", *words, *where]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  our own program
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
