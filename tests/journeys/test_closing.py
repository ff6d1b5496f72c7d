"""Orders that are not paid: cancelled or expired, their units are sold again."""

import asyncio

from tests.journeys.shop import codes


async def test_a_cancelled_order_gives_its_unit_back_once(shop, promises):
    sale = await shop.open_sale(stock=1)
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    assert (await shop.place(sale, "bob")).code == "sold_out"
    for _ in range(2):  # the second time nothing is left to do
        cancelled = await shop.cancel(order_id, "ann")
        assert (cancelled.status, cancelled.body["status"]) == (200, "closed")
        assert cancelled.body["reason"] == "cancelled_by_shopper"
        assert cancelled.body["closed_at"] is not None
    await shop.until_stock(sale, remaining=1, reserved=0, returning=0)
    assert (await shop.place(sale, "bob")).status == 202, "sold again"
    assert (await shop.place(sale, "cat")).code == "sold_out", "once"
    await shop.until_stock(sale, remaining=0, reserved=1, returning=0)
    await promises.hold()


async def test_ten_cancels_at_once_give_the_unit_back_once(shop, promises):
    sale = await shop.open_sale(stock=3)
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    answers = await asyncio.gather(*(shop.cancel(order_id, "ann") for _ in range(10)))
    assert codes(answers) == {"200": 10}
    await shop.until_stock(sale, remaining=3, reserved=0, returning=0)
    await promises.hold()


async def test_who_has_cancelled_may_buy_again(shop, promises):
    sale = await shop.open_sale(stock=3, limit_per_shopper=1)
    first = (await shop.buy(sale, "ann"))["order_id"]
    assert (await shop.place(sale, "ann")).code == "limit_reached"
    await shop.cancel(first, "ann")
    await shop.until_stock(sale, remaining=3, returning=0)
    second = (await shop.buy(sale, "ann"))["order_id"]
    assert second != first
    await promises.hold()


async def test_an_order_nobody_pays_expires_and_its_unit_is_sold_again(shop, promises):
    sale = await shop.open_sale(stock=1, pay_within_seconds=1)
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    closed = await shop.until_order(order_id, "ann", "closed")
    assert closed["reason"] == "expired"
    assert closed["closed_at"] >= closed["pay_by"]
    await shop.until_stock(sale, remaining=1, reserved=0, returning=0)
    assert (await shop.place(sale, "bob")).status == 202
    assert (await shop.place(sale, "cat")).code == "sold_out", "once"
    await promises.hold()


async def test_a_paid_order_cannot_be_cancelled(shop, promises):
    sale = await shop.open_sale()
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    await shop.pay(order_id, "ann")
    await shop.until_order(order_id, "ann", "paid")
    refused = await shop.cancel(order_id, "ann")
    assert (refused.status, refused.code) == (409, "order_not_cancellable")
    assert (await shop.order(order_id, "ann")).body["status"] == "paid"
    await promises.hold()


async def test_a_queued_order_can_be_neither_cancelled_nor_paid_yet(shop, service, promises):
    sale = await shop.open_sale()
    with service.frozen("worker"):
        order_id = (await shop.place(sale, "ann")).body["order_id"]
        for refused in (
            await shop.cancel(order_id, "ann"),
            await shop.start_payment(order_id, "ann"),
        ):
            assert (refused.status, refused.code) == (409, "order_not_confirmed")
            assert refused.body["retryable"]
            assert "Retry-After" in refused.headers
    await shop.until_order(order_id, "ann", "pending")
    assert (await shop.cancel(order_id, "ann")).status == 200
    await promises.hold()
