"""A click, and what it is answered with."""

import asyncio
from email.utils import parsedate_to_datetime

from tests.journeys.shop import codes, ids, names, new_key
from tests.waiting import eventually

TICKET = {
    "order_id",
    "status",
    "sale",
    "quantity",
    "total_minor",
    "currency",
    "placed_at",
    "pay_by",
}


async def test_twenty_clicks_with_one_key_are_one_order(shop, promises):
    sale = await shop.open_sale(stock=5, limit_per_shopper=5)
    answers = await shop.place_many(sale, ["ann"] * 20, new_key())
    assert codes(answers) == {"202": 20}
    assert len(ids(answers)) == 1
    replayed = [answer for answer in answers if "Idempotency-Replayed" in answer.headers]
    assert len(replayed) == 19
    assert len({str(answer.body) for answer in answers}) == 1
    await shop.until_stock(sale, remaining=4, reserved=1, unflushed=0)
    await promises.hold()


async def test_twenty_keys_of_one_shopper_are_one_order_and_nineteen_refusals(shop, promises):
    sale = await shop.open_sale(stock=5, limit_per_shopper=1)
    answers = await shop.place_many(sale, ["ann"] * 20)
    assert codes(answers) == {"202": 1, "limit_reached": 19}
    assert {answer.body["remaining"] for answer in answers if answer.code} == {0}
    await shop.until_stock(sale, remaining=4, reserved=1, unflushed=0)
    await promises.hold()


async def test_two_hundred_shoppers_want_the_last_unit_and_one_gets_it(shop, promises):
    sale = await shop.open_sale(stock=1)
    answers = await shop.place_many(sale, names("s", 200))
    assert codes(answers) == {"202": 1, "sold_out": 199}
    assert all(answer.body["may_return"] for answer in answers if answer.code)
    await shop.until_stock(sale, remaining=0, reserved=1, unflushed=0)
    await promises.hold()


async def test_more_than_is_left_is_refused_with_what_is_left(shop, promises):
    sale = await shop.open_sale(stock=3, limit_per_shopper=10)
    assert (await shop.place(sale, "ann", body={"quantity": 2})).status == 202
    refused = await shop.place(sale, "bob", body={"quantity": 2})
    assert (refused.status, refused.code, refused.body["available"]) == (409, "sold_out", 1)
    over = await shop.place(sale, "ann", body={"quantity": 9})
    assert (over.status, over.code, over.body["remaining"]) == (409, "limit_reached", 8)
    await promises.hold()


async def test_a_ticket_says_what_was_bought_and_where_to_look(shop, service, promises):
    sale = await shop.open_sale(stock=5, limit_per_shopper=2, price_minor=250)
    with service.frozen("worker"):
        answer = await shop.place(sale, "ann", body={"quantity": 2, "reference": "cart 7"})
        assert answer.status == 202
        assert set(answer.body) == TICKET | {"reference"}
        told = {name: answer.body[name] for name in TICKET - {"order_id", "placed_at", "pay_by"}}
        assert told == {
            "status": "queued",
            "sale": sale,
            "quantity": 2,
            "total_minor": 500,
            "currency": "CNY",
        }
        assert answer.body["reference"] == "cart 7"
        assert answer.body["placed_at"].endswith("Z")
        assert answer.headers["Location"] == f"/v1/orders/{answer.body['order_id']}"
        assert "Idempotency-Replayed" not in answer.headers
        seen = await shop.order(answer.body["order_id"], "ann")
        assert (seen.status, seen.body["status"]) == (200, "queued")
    row = await shop.until_order(answer.body["order_id"], "ann", "pending")
    assert row["reference"] == "cart 7"
    assert row["goods"] == [{"sku": sale, "title": "A thing", "quantity": 2, "price_minor": 250}]
    assert row["pay_by"] >= answer.body["pay_by"]
    await promises.hold()


async def test_who_prefers_to_wait_gets_the_row(shop, promises):
    sale = await shop.open_sale()
    answer = await shop.place(sale, "ann", Prefer="wait=5")
    assert (answer.status, answer.body["status"]) == (201, "pending")
    assert set(answer.body) == TICKET
    await promises.hold()


async def test_the_first_who_waits_for_a_sale_is_told_as_soon_as_later_ones(shop, promises):
    clock = asyncio.get_running_loop().time
    for sale in [await shop.open_sale() for _ in range(3)]:
        asked_at = clock()
        assert (await shop.place(sale, "ann", Prefer="wait=5")).status == 201
        assert clock() - asked_at < 3, "a row takes a few milliseconds"
    await promises.hold()


async def test_who_waits_in_vain_gets_the_ticket_after_the_wait(shop, service, promises):
    sale = await shop.open_sale()
    clock = asyncio.get_running_loop().time
    with service.frozen("worker"):
        asked_at = clock()
        answer = await shop.place(sale, "ann", Prefer="wait=1")
        waited_seconds = clock() - asked_at
    assert (answer.status, answer.body["status"]) == (202, "queued")
    assert 1 <= waited_seconds < 3
    await promises.hold()


async def test_a_replay_tells_the_ticket_again_and_the_row_to_who_waits(shop, promises):
    sale = await shop.open_sale()
    key = new_key()
    first = await shop.place(sale, "ann", key)
    order_id = first.body["order_id"]
    await shop.until_order(order_id, "ann", "pending")
    again = await shop.place(sale, "ann", f'"{key}"')  # quoted: the same key
    assert (again.status, again.body) == (202, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    clock = asyncio.get_running_loop().time
    asked_at = clock()
    waiting = await shop.place(sale, "ann", key, Prefer="wait=5")
    assert (waiting.status, waiting.body["status"]) == (201, "pending")
    assert waiting.body["order_id"] == order_id
    assert waiting.headers["Idempotency-Replayed"] == "true"
    assert clock() - asked_at < 3, "the row was there all the time"
    await promises.hold()


async def test_the_same_key_with_other_content_is_refused_and_writes_nothing(shop, promises):
    sale = await shop.open_sale(limit_per_shopper=5)
    key = new_key()
    assert (await shop.place(sale, "ann", key)).status == 202
    other = await shop.place(sale, "ann", key, body={"quantity": 2})
    assert (other.status, other.code) == (422, "idempotency_mismatch")
    theirs = await shop.place(sale, "bob", key, body={"quantity": 2})
    assert theirs.status == 202, "keys belong to their shopper"
    await shop.until_stock(sale, remaining=7, reserved=3, unflushed=0)
    await promises.hold()


async def test_orders_of_two_shards_are_listed_together(shop, promises):
    sales = [await shop.open_sale(limit_per_shopper=9) for _ in range(4)]
    shards = {sale: (await shop.queue(sale))["shard"] for sale in sales}
    assert set(shards.values()) == {0, 1}
    shopper = f"list-{sales[0]}"
    bought = [(await shop.buy(sale, shopper))["order_id"] for sale in sales]
    listed: list[str] = []
    query = "?limit=3"
    while query:
        page = await shop.orders(shopper, query)
        listed += [order["order_id"] for order in page["items"]]
        query = f"?limit=3&cursor={page['next']}" if page["next"] else ""
    assert listed == bought[::-1], "newest first, none missing, none twice"
    await shop.cancel(bought[1], shopper)
    await shop.until_order(bought[1], shopper, "closed")
    closed = await shop.orders(shopper, "?status=closed")
    assert [order["order_id"] for order in closed["items"]] == [bought[1]]
    pending = await shop.orders(shopper, "?status=pending")
    assert [order["order_id"] for order in pending["items"]] == [
        bought[index] for index in (3, 2, 0)
    ]
    await promises.hold()


async def test_others_do_not_see_an_order(shop, promises):
    sale = await shop.open_sale()
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    for answer in (
        await shop.order(order_id, "bob"),
        await shop.cancel(order_id, "bob"),
        await shop.start_payment(order_id, "bob"),
    ):
        assert (answer.status, answer.code) == (404, "order_not_found")
    assert order_id not in str(await shop.orders("bob"))
    assert (await shop.order(order_id, "ann")).body["status"] == "pending"
    await promises.hold()


async def test_the_clock_is_told_with_every_answer(shop):
    sale = await shop.open_sale()
    told = await shop.ask("GET", f"{shop.run.public}/v1/time")
    assert told.headers["Cache-Control"] == "no-store"
    for url in ("/v1/time", "/v1/sales", f"/v1/sales/{sale}"):
        answer = await shop.ask("GET", shop.run.public + url)
        now_ms = int(answer.headers["Server-Now-Ms"])
        assert abs(now_ms - told.body["now_ms"]) < 5_000
        date_ms = parsedate_to_datetime(answer.headers["Date"]).timestamp() * 1_000
        assert abs(now_ms - date_ms) < 5_000
        assert answer.headers["X-Request-Id"]


async def test_a_sale_that_has_not_changed_is_not_sent_again(shop):
    sale = await shop.open_sale(stock=2, limit_per_shopper=2)
    url = f"{shop.run.public}/v1/sales/{sale}"
    first = await shop.ask("GET", url)
    assert first.body["stock_band"] == "plenty"
    assert first.headers["Cache-Control"] == "max-age=1"
    tag = first.headers["ETag"]
    again = await shop.ask("GET", url, If_None_Match=tag)
    assert (again.status, again.body, again.headers["ETag"]) == (304, None, tag)
    await shop.buy(sale, "ann", quantity=2)

    async def shows_that_it_is_gone() -> bool:
        answer = await shop.ask("GET", url, If_None_Match=tag)
        return answer.status == 200 and answer.body["stock_band"] == "gone"

    await eventually(shows_that_it_is_gone)
