"""A sale from its draft to its end, by route and by command."""

import asyncio
import json
from datetime import datetime

import pytest
from click.testing import CliRunner

from app.cli.doorbuster import main
from tests.journeys.shop import in_seconds, new_key
from tests.waiting import eventually


async def state_of(shop, sale):
    return (await shop.ask("GET", f"{shop.run.public}/v1/sales/{sale}")).body["state"]


async def state_is(shop, sale, state):
    """Each api process knows sales a second old at most."""
    return await state_of(shop, sale) == state


async def test_a_draft_is_nobodys_business(shop, promises):
    sale = await shop.create_sale()
    shown = await shop.ask("GET", f"{shop.run.public}/v1/sales/{sale}")
    assert (shown.status, shown.code) == (404, "sale_not_found")
    bought = await shop.place(sale, "ann")
    assert (bought.status, bought.code) == (404, "sale_not_found")
    listed = await shop.ask("GET", f"{shop.run.public}/v1/sales?limit=100")
    assert sale not in {one["id"] for one in listed.body["items"]}
    await promises.hold()


async def test_a_sale_lives_from_create_to_close(shop, promises):
    sale = await shop.open_sale(stock=1, limit_per_shopper=9)
    first_key = new_key()
    first = await shop.place(sale, "ann", first_key)
    assert first.status == 202

    assert (await shop.operate("POST", f"/sales/{sale}/pause", {"reason": "look"})).status == 200
    paused = await shop.place(sale, "bob")
    assert (paused.status, paused.code) == (403, "sale_paused")
    assert int(paused.headers["Retry-After"]) >= 1
    replay = await shop.place(sale, "ann", first_key)
    assert (replay.status, replay.body) == (202, first.body), "replays are answered all the same"

    assert (await shop.operate("POST", f"/sales/{sale}/resume", {})).status == 200
    assert (await shop.place(sale, "bob")).code == "sold_out"
    key = new_key()
    for _ in range(2):  # the same key adds once
        added = await shop.operate(
            "POST", f"/sales/{sale}/restock", {"units": 2, "reason": "found"}, Idempotency_Key=key
        )
        assert (added.status, added.body["stock_total"]) == (200, 3)
    await shop.until_stock(sale, remaining=2)
    assert (await shop.place(sale, "bob")).status == 202

    assert (await shop.operate("POST", f"/sales/{sale}/close", {"reason": "enough"})).status == 200
    ended = await shop.place(sale, "cat")
    assert (ended.status, ended.code) == (403, "sale_ended")
    replay = await shop.place(sale, "ann", first_key)
    assert (replay.status, replay.body) == (202, first.body), "after the end too"
    assert await eventually(lambda: state_is(shop, sale, "closed"))
    await promises.hold()


@pytest.mark.parametrize("event", ["publish", "pause", "resume", "close"])
async def test_repeating_an_act_on_a_sale_has_no_second_effect(shop, promises, event):
    sale = await shop.open_sale()
    if event == "resume":
        assert (await shop.operate("POST", f"/sales/{sale}/pause", {})).status == 200
    first = await shop.operate("POST", f"/sales/{sale}/{event}", {})
    again = await shop.operate("POST", f"/sales/{sale}/{event}", {})
    assert (first.status, again.status) == (200, 200)
    assert first.body["state"] == again.body["state"]
    await promises.hold()


async def test_what_a_closed_sale_cannot_do_is_a_conflict(shop, promises):
    sale = await shop.open_sale()
    await shop.operate("POST", f"/sales/{sale}/close", {})
    for event in ("publish", "pause", "resume"):
        refused = await shop.operate("POST", f"/sales/{sale}/{event}", {})
        assert (refused.status, refused.code) == (409, "sale_state_conflict"), event
    refused = await shop.operate("POST", f"/sales/{sale}/restock", {"units": 1, "reason": "late"})
    assert (refused.status, refused.code) == (409, "sale_state_conflict")
    await promises.hold()


async def test_a_scheduled_sale_opens_by_itself_and_not_before(shop, promises):
    sale = await shop.open_sale(opens_at=in_seconds(2))
    early = await shop.place(sale, "ann")
    assert (early.status, early.code) == (403, "not_open")
    shown = await shop.ask("GET", f"{shop.run.public}/v1/sales/{sale}")
    assert shown.body["state"] == "scheduled"
    assert early.body["opens_at"] == shown.body["opens_at"]
    assert 1 <= int(early.headers["Retry-After"]) <= 3
    assert 0 < early.body["retry_after_ms"] <= 2_100

    async def is_sold() -> int:
        answer = await shop.place(sale, "ann")
        if answer.status != 202:
            assert answer.code == "not_open"
            return 0
        return int(answer.headers["Server-Now-Ms"])

    sold_at_ms = await eventually(is_sold)
    late_ms = sold_at_ms - ms_of(shown.body["opens_at"])
    assert 0 <= late_ms < 1_000, "to the second, and not a millisecond early"
    assert await state_of(shop, sale) == "open"
    await promises.hold()


async def test_a_sale_ends_by_itself_and_still_answers_what_it_sold(shop, promises):
    sale = await shop.open_sale(closes_at=in_seconds(3))
    key = new_key()
    first = await shop.place(sale, "ann", key)
    assert first.status == 202

    async def has_ended() -> bool:
        return (await shop.place(sale, "bob", body={"quantity": 2})).code == "sale_ended"

    await eventually(has_ended)
    assert await eventually(lambda: state_is(shop, sale, "ended"))
    replay = await shop.place(sale, "ann", key)
    assert (replay.status, replay.body) == (202, first.body)
    await promises.hold()


async def command(service, *arguments):
    """Run `doorbuster ARGUMENTS --json` on the service; return its document."""
    where = ["--json", "--data-dir", str(service.data_dir)]
    done = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, *where])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def test_the_same_life_by_command(shop, service, promises):
    created = await command(
        service,
        *("sale", "create", "--title", "Typed by hand", "--stock", "3", "--price-minor", "500"),
        *("--limit", "2", "--merchant", "m-1"),
    )
    sale = created["id"]
    assert sale.startswith("typed-by-hand-")
    assert (created["state"], created["merchant"]) == ("draft", "m-1")
    assert (await command(service, "sale", "publish", sale))["state"] == "open"
    await shop.until_sells(sale)
    assert (await shop.place(sale, "ann")).status == 202
    assert (await command(service, "sale", "pause", sale, "--reason", "look"))["state"] == "paused"
    assert (await shop.place(sale, "bob")).code == "sale_paused"
    assert (await command(service, "sale", "resume", sale))["state"] == "open"
    restocked = await command(service, "sale", "restock", sale, "--units", "4", "--reason", "found")
    assert restocked["stock_total"] == 7
    await shop.until_stock(sale, remaining=6, reserved=1)
    assert (await command(service, "sale", "show", sale))["stock"]["remaining"] == 6
    assert sale in {one["id"] for one in (await command(service, "sale", "list"))["items"]}
    assert sale in {one["sale"] for one in (await command(service, "queue"))["queues"]}
    assert (await command(service, "sale", "close", sale, "--reason", "enough"))[
        "state"
    ] == "closed"
    assert (await shop.place(sale, "bob")).code == "sale_ended"
    assert (await command(service, "audit", "--sale", sale))["verdict"] == "holds"
    await promises.hold()


def ms_of(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp() * 1_000)
