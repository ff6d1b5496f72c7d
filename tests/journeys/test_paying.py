"""Payments over HTTP, against the sandbox gateway and whatever it is told to play."""

import pytest

from tests.journeys.shop import new_key
from tests.waiting import eventually

PRICE = 1_999


@pytest.fixture
async def sale(shop):
    return await shop.open_sale(price_minor=PRICE, limit_per_shopper=9)


@pytest.fixture
async def order_id(shop, sale):
    return (await shop.buy(sale, "ann"))["order_id"]


async def paid_of(shop, sale):
    return (await shop.stock(sale))["paid"]


async def test_a_payment_makes_the_order_paid(shop, sale, order_id, promises):
    key = new_key()
    started = await shop.start_payment(order_id, "ann", key)
    assert started.status == 201
    payment = started.body
    assert (payment["status"], payment["amount_minor"], payment["currency"]) == (
        "open",
        PRICE,
        "CNY",
    )
    assert payment["action"]["kind"] == "qr"
    again = await shop.start_payment(order_id, "ann", key)
    assert (again.status, again.body["payment_id"]) == (201, payment["payment_id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    await shop.play(payment["payment_id"], outcome="pay")
    paid = await shop.until_order(order_id, "ann", "paid")
    assert paid["paid_at"] is not None
    assert [one["status"] for one in paid["payments"]] == ["paid"]
    assert await paid_of(shop, sale) == 1
    late = await shop.start_payment(order_id, "ann")
    assert (late.status, late.code) == (409, "order_not_payable")
    await promises.hold()
    assert await shop.books_balance()


@pytest.mark.parametrize(
    "lie",
    [{"amount_minor": PRICE - 1}, {"amount_minor": PRICE + 1}, {"callback": "forged"}],
    ids=["one cent less", "one cent more", "forged"],
)
async def test_a_message_that_lies_pays_nothing(shop, sale, order_id, promises, lie):
    liar = await shop.pay(order_id, "ann", **lie)
    # An honest payment of another order comes after the lie, and is told after it.
    honest = (await shop.buy(sale, "bob"))["order_id"]
    await shop.pay(honest, "bob")
    await shop.until_order(honest, "bob", "paid")
    order = (await shop.order(order_id, "ann")).body
    assert (order["status"], order["paid_at"], order["refunds"]) == ("pending", None, [])
    assert [one["status"] for one in order["payments"]] == ["open"]
    await shop.play(liar, outcome="pay")  # the truth is still believed
    await shop.until_order(order_id, "ann", "paid")
    assert await paid_of(shop, sale) == 2
    await promises.hold()
    assert await shop.books_balance()


async def test_a_message_that_comes_twice_pays_once(shop, sale, order_id, promises):
    await shop.pay(order_id, "ann", callback="twice")
    paid = await shop.until_order(order_id, "ann", "paid")
    assert [one["status"] for one in paid["payments"]] == ["paid"]
    assert await paid_of(shop, sale) == 1
    await promises.hold()
    assert (await shop.order(order_id, "ann")).body["refunds"] == []
    assert await shop.books_balance()


async def test_money_for_a_closed_order_goes_back_once(shop, sale, order_id, promises):
    payment_id = (await shop.start_payment(order_id, "ann")).body["payment_id"]
    await shop.cancel(order_id, "ann")
    await shop.until_order(order_id, "ann", "closed")
    await shop.until_stock(sale, remaining=10, reserved=0, returning=0)
    await shop.play(payment_id, outcome="pay", callback="twice")

    async def refunds() -> list[dict[str, object]]:
        refunds = (await shop.order(order_id, "ann")).body["refunds"]
        return refunds if refunds and refunds[0]["status"] == "succeeded" else []

    [refund] = await eventually(refunds, within_seconds=30)
    assert (refund["amount_minor"], refund["payment_id"]) == (PRICE, payment_id)
    order = (await shop.order(order_id, "ann")).body
    assert order["status"] == "closed", "closed never becomes paid"
    assert [one["status"] for one in order["payments"]] == ["paid_late"]
    await promises.hold()
    await shop.until_stock(sale, remaining=10, reserved=0, paid=0)
    assert await shop.books_balance()


async def test_money_that_nobody_told_us_of_pays_an_order_that_is_closing(
    shop, sale, order_id, promises
):
    """Who closes asks the provider first: `closing` becomes `paid`, not `closed`."""
    payment_id = await shop.pay(order_id, "ann", callback="never")
    cancelled = await shop.cancel(order_id, "ann")
    assert cancelled.body["status"] in {"closing", "paid"}, cancelled
    paid = await shop.until_order(order_id, "ann", "paid")
    assert [(one["payment_id"], one["status"]) for one in paid["payments"]] == [
        (payment_id, "paid")
    ]
    timeline = (await shop.read(f"/orders/{order_id}"))["timeline"]
    told = [one["event"] for one in timeline]
    assert told == ["placed", "close_asked", "payment_captured"]
    assert paid["refunds"] == []
    await shop.until_stock(sale, remaining=9, reserved=1, paid=1, returning=0)
    await promises.hold()
    assert await shop.books_balance()


async def test_a_declined_payment_may_be_followed_by_another(shop, sale, order_id, promises):
    first = await shop.pay(order_id, "ann", outcome="decline")
    second = await shop.pay(order_id, "ann")
    assert first != second
    paid = await shop.until_order(order_id, "ann", "paid")
    assert sorted(one["status"] for one in paid["payments"]) == ["closed", "paid"]
    assert await paid_of(shop, sale) == 1
    await promises.hold()
    assert await shop.books_balance()
