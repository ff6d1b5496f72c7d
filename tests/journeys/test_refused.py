"""What a paid order and a group must refuse, by name and without a trace; and acts done twice."""

import contextlib

import aiohttp
import pytest

from tests.contract.door import Door
from tests.journeys.group_rush import SIZE, open_group_sale
from tests.journeys.shop import new_key
from tests.journeys.test_fulfilment import DELIVERY, PRICE, Orders, told
from tests.journeys.test_groups import group_of, join, until_group

BAD_DETAILS = {
    "an address that is too long": ("address", "x" * 257),
    "an address of nothing but spaces": ("address", "   "),
    "an address with a control character": ("address", "1 Main\x07 St"),
    "an address in two lines": ("address", "1 Main St\n2nd floor"),
    "an address that turns the writing round": ("address", "1 Main \u202eSt"),
    "a receiver that is too long": ("receiver", "x" * 65),
    "a receiver with an emoji": ("receiver", "王😀"),
    "a receiver with a control character": ("receiver", "Ann\x00Lee"),
    "a receiver with an invisible character": ("receiver", "Ann\u200bLee"),
    "a phone that is too short": ("mobile", "12345"),
    "a phone that is too long": ("mobile", "+1234567890123456"),
    "a phone with letters": ("mobile", "1380013800O"),
    "a phone in full-width digits": ("mobile", "\uff11" * 11),
    "a phone from zero": ("mobile", "+014155550100"),
}


@pytest.fixture
async def orders(shop):
    return Orders(shop, await shop.open_sale(price_minor=PRICE, limit_per_shopper=9))


@pytest.fixture
async def unchanged(service, promises):
    """Rows of every table and keys of Redis, counted before and after."""
    async with aiohttp.ClientSession() as client:
        door = Door(client, service.run, {})

        @contextlib.asynccontextmanager
        async def watch():
            await promises.hold()
            async with door.nothing_is_written():
                yield

        yield watch


async def test_details_that_no_label_can_bear_are_refused_where_they_are_wrong(orders, unchanged):
    order_id = await orders.buy()
    assert (await orders.act(order_id, "delivery", DELIVERY, method="PUT")).status == 200
    shown = (await orders.shop.order(order_id, "ann")).body["delivery"]
    async with unchanged():
        for what, (name, value) in BAD_DETAILS.items():
            body = {**DELIVERY, name: value}
            refused = await orders.act(order_id, "delivery", body, method="PUT")
            assert told(refused) == (422, "validation_failed"), what
            assert [one["path"] for one in refused.body["errors"]] == [f"$.{name}"], what
            assert value.strip() not in str(refused.body) or not value.strip(), what
    assert (await orders.shop.order(order_id, "ann")).body["delivery"] == shown


async def test_nothing_is_done_to_an_order_that_is_not_paid(orders, shop, unchanged):
    order_id = await orders.buy()
    tries = {
        "order_not_shippable": lambda: orders.ship(order_id),
        "order_not_reviewable": lambda: shop.operate(
            "POST", f"/orders/{order_id}/review", {"decision": "approve"}
        ),
        "order_not_confirmable": lambda: orders.act(order_id, "confirm-receipt"),
        "not_refundable": lambda: refund(shop, order_id, 1),
    }
    async with unchanged():
        for code, attempt in tries.items():
            assert told(await attempt()) == (409, code)
    assert await orders.timeline(order_id) == ["placed"]


async def test_no_more_is_refunded_than_was_paid(orders, shop, promises, unchanged):
    order_id = await orders.shipped()
    assert (await refund(shop, order_id, 500)).status == 201
    assert await orders.until_refunded(order_id) == [500]
    claim = {"kind": "refund", "reason": "quality", "amount_minor": PRICE - 499}
    async with unchanged():
        for amount in (PRICE - 499, PRICE, 10**12):
            assert told(await refund(shop, order_id, amount)) == (409, "refund_exceeds_paid")
        asked = await orders.act(order_id, "after-sales", claim, Idempotency_Key=new_key())
        assert told(asked) == (409, "refund_exceeds_paid")
    assert (await refund(shop, order_id, PRICE - 500)).status == 201
    assert sorted(await orders.until_refunded(order_id)) == [500, PRICE - 500]
    async with unchanged():
        assert told(await refund(shop, order_id, 1)) == (409, "not_refundable")
    await promises.hold()
    assert await shop.books_balance()


async def test_acts_that_are_done_twice_are_done_once(orders, unchanged):
    unpaid, paid = await orders.buy(), await orders.shipped()
    assert (await orders.act(unpaid, "cancel")).body["status"] == "closed"
    assert (await orders.act(paid, "confirm-receipt")).body["status"] == "completed"
    async with unchanged():
        cancelled = await orders.act(unpaid, "cancel")
        shipped = await orders.ship(paid)
        confirmed = await orders.act(paid, "confirm-receipt")
    assert [one.status for one in (cancelled, shipped, confirmed)] == [200] * 3
    assert [one.body["status"] for one in (cancelled, shipped, confirmed)] == [
        "closed", "completed", "completed",
    ]  # fmt: skip


async def test_nobody_joins_a_group_that_is_over_or_of_another_sale(shop, unchanged):
    brief = {"size": SIZE, "window_seconds": 6}
    sale, other = await open_group_sale(shop, group=brief), await open_group_sale(shop)
    over, foreign = await join(shop, sale, "ann"), await join(shop, other, "ann")
    await until_group(shop, over["group"], "failed")
    async with unchanged():
        late = await shop.place(sale, "bob", body={"group": over["group"]})
        assert told(late) == (409, "group_expired")
        strange = await shop.place(sale, "bob", body={"group": foreign["group"]})
        assert told(strange) == (404, "group_not_found")
    assert (await shop.stock(sale))["reserved"] == 0


async def test_a_group_can_be_joined_before_its_row_is_there(shop, service, promises):
    sale = await open_group_sale(shop)
    with service.frozen("worker"):
        opened = await shop.place(sale, "ann", body={"group": "new"})
        assert opened.status == 202, opened
        group = opened.body["group"]
        shown = await shop.ask("GET", f"{shop.run.public}/v1/groups/{group}")
        assert told(shown) == (409, "order_not_confirmed")
        assert shown.body["retryable"] is True
        assert (await shop.place(sale, "bob", body={"group": group})).status == 202
    await shop.until_order(opened.body["order_id"], "ann", "pending")
    assert (await group_of(shop, group))["state"] == "open"
    await promises.hold()


async def refund(shop, order_id, amount_minor):
    body = {"amount_minor": amount_minor, "reason": "a test"}
    return await shop.operate("POST", f"/orders/{order_id}/refunds", body)
