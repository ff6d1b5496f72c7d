"""Group-buy over HTTP with all workers: formed, failed, rescued, refused, in a rush."""

import pytest

from tests.journeys.group_rush import SIZE, open_group_sale, rush
from tests.journeys.shop import new_key
from tests.waiting import eventually

PRICE = 1_999


async def group_of(shop, group):
    answer = await shop.ask("GET", f"{shop.run.public}/v1/groups/{group}")
    assert answer.status == 200, answer
    return answer.body


async def until_group(shop, group, state):
    async def look():
        found = await group_of(shop, group)
        return found if found["state"] == state else None

    return await eventually(look, within_seconds=30.0)


async def join(shop, sale, shopper, group="new"):
    """Take a seat with one key until the bucket answers; give the confirmed order."""
    key = new_key()

    async def click():
        answer = await shop.place(sale, shopper, key, {"group": group}, Prefer="wait=5")
        if answer.status == 503:
            return None
        assert answer.status == 201, answer
        return answer.body

    return await eventually(click, within_seconds=30.0)


async def team(shop, sale, *shoppers):
    leader = await join(shop, sale, shoppers[0])
    return [leader, *[await join(shop, sale, one, leader["group"]) for one in shoppers[1:]]]


async def test_a_group_forms_when_its_last_seat_is_paid(shop, promises):
    sale = await open_group_sale(shop)
    view = (await shop.ask("GET", f"{shop.run.public}/v1/sales/{sale}")).body
    assert view["group"]["size"] == SIZE
    orders = await team(shop, sale, "ann", "bob", "cat")
    group = orders[0]["group"]
    full = await shop.place(sale, "dan", body={"group": group})
    assert (full.status, full.code) == (409, "group_full")
    for order, shopper in zip(orders[:2], ("ann", "bob"), strict=True):
        await shop.pay(order["order_id"], shopper)
        await shop.until_order(order["order_id"], shopper, "paid")
    told = await group_of(shop, group)
    assert (told["state"], told["seats_taken"], told["seats_paid"]) == ("open", 3, 2)
    assert set(told) == {
        "group_id", "sale", "size", "seats_taken", "seats_paid", "state", "expires_at",
        "merged_into",
    }  # fmt: skip
    early = await ship(shop, orders[0])
    assert (early.status, early.code) == (409, "order_not_shippable")
    await shop.pay(orders[2]["order_id"], "cat")
    await until_group(shop, group, "formed")
    assert (await ship(shop, orders[0])).status == 200
    await promises.hold()
    assert await shop.books_balance()


async def ship(shop, order):
    path = f"/orders/{order['order_id']}/ship"
    return await shop.operate("POST", path, {"carrier": "sf", "tracking_number": "SF1"})


async def test_a_group_with_an_unpaid_seat_fails_whole_at_its_end(shop, promises):
    sale = await open_group_sale(shop, group={"size": SIZE, "window_seconds": 8})
    orders = await team(shop, sale, "ann", "bob", "cat")
    for order, shopper in zip(orders[:2], ("ann", "bob"), strict=True):
        assert order["pay_by"] <= (await group_of(shop, order["group"]))["expires_at"]
        await shop.pay(order["order_id"], shopper)
        await shop.until_order(order["order_id"], shopper, "paid")
    await until_group(shop, orders[0]["group"], "failed")
    for order, shopper in zip(orders[:2], ("ann", "bob"), strict=True):
        ended = await shop.until_order(order["order_id"], shopper, "refunded")
        assert ended["reason"] == "group_failed"
        assert [refund["amount_minor"] for refund in ended["refunds"]] == [PRICE]
    closed = await shop.until_order(orders[2]["order_id"], "cat", "closed")
    assert closed["reason"] in {"group_failed", "expired"}
    await shop.until_stock(sale, remaining=10, reserved=0)
    late = await shop.place(sale, "dan", body={"group": orders[0]["group"]})
    assert (late.status, late.code) == (409, "group_expired")
    await promises.hold()
    assert await shop.books_balance()


async def test_incomplete_groups_are_rescued_by_merging_them(shop, promises):
    rules = {"size": SIZE, "window_seconds": 14, "rescue_seconds": 7}
    sale = await open_group_sale(shop, group=rules)
    first = await team(shop, sale, "ann", "bob")
    second = await team(shop, sale, "cat")
    members = [*zip(first, ("ann", "bob"), strict=True), (second[0], "cat")]
    for order, shopper in members:
        await shop.pay(order["order_id"], shopper)
    merged = await until_group(shop, second[0]["group"], "merged")
    assert merged["merged_into"] == first[0]["group"]
    whole = await until_group(shop, first[0]["group"], "formed")
    assert whole["seats_paid"] == SIZE
    for order, shopper in members:
        now = await shop.until_order(order["order_id"], shopper, "paid")
        assert now["group"] == first[0]["group"]
    await promises.hold()


async def test_a_replay_tells_the_same_group(shop):
    sale = await open_group_sale(shop)
    order = await join(shop, sale, "ann")
    key = new_key()
    again = [await shop.place(sale, "bob", key, {"group": "new"}) for _ in range(2)]
    assert [answer.status for answer in again] == [202, 202]
    assert again[0].body == again[1].body
    assert again[1].headers["Idempotency-Replayed"] == "true"
    other = await shop.place(sale, "bob", key, {"group": order["group"]})
    assert (other.status, other.code) == (422, "idempotency_mismatch")


async def test_what_no_group_can_take_is_refused_by_name(shop, promises):
    sale, foreign = await open_group_sale(shop), await open_group_sale(shop)
    plain = await shop.open_sale()
    order, elsewhere = await join(shop, sale, "ann"), await join(shop, foreign, "ann")
    tries = {
        "none": (sale, "bob", {}, 422, "validation_failed"),
        "where there are none": (plain, "bob", {"group": "new"}, 422, "validation_failed"),
        "of another sale": (sale, "bob", {"group": elsewhere["group"]}, 404, "group_not_found"),
        "invented": (sale, "bob", {"group": "grp_" + "0" * 26}, 404, "group_not_found"),
        "an order": (sale, "bob", {"group": order["order_id"]}, 404, "group_not_found"),
        "a second one": (sale, "ann", {"group": "new"}, 409, "already_in_group"),
        "the same": (sale, "ann", {"group": order["group"]}, 409, "already_in_group"),
    }
    for name, (where, shopper, body, status, code) in tries.items():
        answer = await shop.place(where, shopper, body=body)
        assert (answer.status, answer.code) == (status, code), name
    unknown = await shop.ask("GET", f"{shop.run.public}/v1/groups/grp_{'0' * 26}")
    assert (unknown.status, unknown.code) == (404, "group_not_found")
    assert (await shop.stock(sale))["reserved"] == 1
    await promises.hold()


@pytest.mark.parametrize("terms", [
    {"kind": "group"},
    {"group": {"size": 3}},
    {"kind": "group", "group": {"size": 1}},
    {"kind": "group", "group": {"size": 101}},
    {"kind": "group", "group": {"size": 3, "window_seconds": 5}},
    {"kind": "group", "group": {"size": 3, "leader_leaves": "nobody"}},
    {"kind": "group", "group": {"size": 3}, "buckets": 2},
    {"kind": "group", "group": {"size": 3, "window_seconds": 60, "rescue_seconds": 31}},
])  # fmt: skip
async def test_terms_that_make_no_groups_are_refused(shop, terms):
    body = {"title": "A thing", "stock": 10, "price_minor": PRICE, **terms}
    answer = await shop.operate("POST", "/sales", body)
    assert (answer.status, answer.code) == (422, "validation_failed")


async def test_a_rush_leaves_every_group_full_or_refunded(shop, promises):
    one = await rush(shop, shoppers=150, stock=45, window_seconds=10, seed=7, at_once=8)
    assert len(one.bought) >= 45
    await promises.hold()
    assert await shop.books_balance()
