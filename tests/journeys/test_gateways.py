"""
Payments over WeChat Pay and Alipay, from click to refund, against the sandbox gateway.

Each journey is the same over both protocols: what differs is what the gateway
says and how it is signed, and none of that may be seen from here.
"""

import pytest

from tests.journeys.shop import new_key
from tests.waiting import eventually

PRICE = 1_999
SECONDS = 30.0


class Till:
    """One provider, as a shopper of one sale meets it."""

    def __init__(self, shop, sale, provider):
        self.shop = shop
        self.sale = sale
        self.provider = provider

    async def order(self, shopper="ann"):
        return (await self.shop.buy(self.sale, shopper))["order_id"]

    async def start(self, order_id, shopper="ann", key=None):
        return await self.shop.start_payment(
            order_id, shopper, key, provider=self.provider, product="qr"
        )

    async def pay(self, order_id, shopper="ann", **what):
        """Start a payment, let the shopper see it, and play what follows; return its number."""
        started = await self.start(order_id, shopper)
        assert started.status == 201, started
        assert started.body["status"] == "open", started
        number = started.body["payment_id"]
        await self.shop.play(number, outcome="scan")
        await self.shop.play(number, **{"outcome": "pay", **what})
        return number

    async def refunds(self, order_id, shopper="ann"):
        return (await self.shop.order(order_id, shopper)).body["refunds"]

    async def until_refunds(self, order_id, *statuses):
        """Wait until the refunds of an order have these statuses."""

        async def look():
            refunds = await self.refunds(order_id)
            return refunds if [one["status"] for one in refunds] == [*statuses] else None

        return await eventually(look, within_seconds=SECONDS)

    async def paid(self):
        return (await self.shop.stock(self.sale))["paid"]

    async def late_payment(self, order_id, **script):
        """Pay for an order that was cancelled meanwhile; return the payment's number."""
        number = (await self.start(order_id)).body["payment_id"]
        await self.shop.play(number, outcome="scan", script=script)
        await self.shop.cancel(order_id, "ann")
        await self.shop.until_order(order_id, "ann", "closed")
        await self.shop.play(number, outcome="pay")
        return number


@pytest.fixture(params=["wechatpay", "alipay"])
async def till(request, shop):
    sale = await shop.open_sale(price_minor=PRICE, limit_per_shopper=9)
    return Till(shop, sale, request.param)


async def books_close(shop, promises):
    await promises.hold()
    assert await shop.books_balance()


async def test_paid_and_refunded(shop, till, promises):
    order_id = await till.order()
    number = await till.pay(order_id)
    paid = await shop.until_order(order_id, "ann", "paid")
    assert [(one["payment_id"], one["status"]) for one in paid["payments"]] == [(number, "paid")]
    assert await till.paid() == 1

    for amount_minor in (500, PRICE - 500):
        asked = await shop.operate(
            "POST",
            f"/orders/{order_id}/refunds",
            {"reason": "goodwill", "amount_minor": amount_minor},
        )
        assert asked.status == 201, asked
    refunds = await till.until_refunds(order_id, "succeeded", "succeeded")
    assert sum(one["amount_minor"] for one in refunds) == PRICE
    assert {one["payment_id"] for one in refunds} == {number}
    await shop.until_order(order_id, "ann", "refunded")
    await books_close(shop, promises)


async def test_money_for_a_closed_order_goes_back_once(shop, till, promises):
    order_id = await till.order()
    number = await till.late_payment(order_id)
    [refund] = await till.until_refunds(order_id, "succeeded")
    assert (refund["amount_minor"], refund["payment_id"]) == (PRICE, number)
    assert (await shop.order(order_id, "ann")).body["status"] == "closed"
    await shop.until_stock(till.sale, remaining=10, reserved=0, paid=0)
    await books_close(shop, promises)


LIES = (
    {"amount_minor": PRICE - 1},
    {"amount_minor": PRICE + 1},
    {"merchant_id": "1900000999"},
    {"app_id": "wxsomebodyelse"},
    {"callback": "forged"},
)


async def test_messages_that_lie_pay_nothing(shop, till, promises):
    orders = [await till.order() for _ in LIES]
    liars = [await till.pay(one, **lie) for one, lie in zip(orders, LIES, strict=True)]
    # An honest payment of another order comes after the lies, and is told after them.
    honest = await till.order("bob")
    await till.pay(honest, "bob")
    await shop.until_order(honest, "bob", "paid")
    for one in orders:
        order = (await shop.order(one, "ann")).body
        assert (order["status"], order["paid_at"], order["refunds"]) == ("pending", None, [])
    for liar in liars:
        await shop.play(liar, outcome="pay")  # the truth is still believed
    for one in orders:
        await shop.until_order(one, "ann", "paid")
    assert await till.paid() == 1 + len(LIES)
    await books_close(shop, promises)


TELLINGS = ("twice", "late", "probe", "out_of_order", "never")


async def test_however_it_is_told_it_is_paid_once(shop, till, promises):
    orders = [await till.order() for _ in TELLINGS]
    for one, callback in zip(orders, TELLINGS, strict=True):
        await till.pay(one, callback=callback)
    for one in orders:
        paid = await shop.until_order(one, "ann", "paid")
        assert [payment["status"] for payment in paid["payments"]] == ["paid"]
    assert await till.paid() == len(TELLINGS)
    await books_close(shop, promises)
    assert [await till.refunds(one) for one in orders] == [[] for _ in TELLINGS]


# What waits for a pause of ours is played over one protocol; for the other it is in
# tests/stores/payments, where the clock can be moved.
only_wechatpay = pytest.mark.parametrize("till", ["wechatpay"], indirect=True)


@only_wechatpay
async def test_a_lost_answer_to_a_create_call_is_fetched_again(shop, till, promises):
    order_id = await till.order()
    first = f"{order_id}01"
    # Two calls of one request: the first, and the repeat after its unclear end.
    await shop.play(first, script={"lost_answers": {"create": 2}})
    key = new_key()
    started = await till.start(order_id, key=key)
    assert started.body["status"] == "unknown", started

    async def again():
        answer = await till.start(order_id, key=key)
        return answer if answer.status == 201 and answer.body["status"] == "open" else None

    opened = await eventually(again, within_seconds=SECONDS)
    assert opened.body["payment_id"] == first
    await shop.play(first, outcome="pay")
    await shop.until_order(order_id, "ann", "paid")
    await books_close(shop, promises)


@only_wechatpay
async def test_a_refund_whose_answer_is_lost_is_made_once(shop, till, promises):
    order_id = await till.order()
    number = await till.late_payment(order_id, lost_answers={"refund": 1})
    [refund] = await till.until_refunds(order_id, "succeeded")
    assert (refund["amount_minor"], refund["payment_id"]) == (PRICE, number)
    await books_close(shop, promises)


@only_wechatpay
@pytest.mark.parametrize("ending", ["succeed", "closed"])
async def test_a_refund_that_is_held_ends_as_the_gateway_says(shop, till, promises, ending):
    order_id = await till.order()
    await till.late_payment(order_id, refund="held")
    [refund] = await eventually(lambda: till.refunds(order_id), within_seconds=SECONDS)
    control = f"{shop.run.sandbox}/control/refunds/{refund['refund_id']}"

    async def ended():
        """End it as soon as the gateway has heard of it."""
        return (await shop.ask("POST", control, body={"outcome": ending})).status == 202

    await eventually(ended, within_seconds=SECONDS)
    if ending == "closed":
        # A person settles it at the gateway, whose message then ends it here too.
        await till.until_refunds(order_id, "abnormal")
        await shop.ask("POST", control, body={"outcome": "succeed"})
    await till.until_refunds(order_id, "succeeded")
    await books_close(shop, promises)


async def test_an_order_that_was_declined_may_be_paid_again(shop, till, promises):
    order_id = await till.order()
    await till.pay(order_id, outcome="decline")

    async def second():
        answer = await till.start(order_id)
        return answer if answer.status == 201 else None

    started = await eventually(second, within_seconds=SECONDS)
    await shop.play(started.body["payment_id"], outcome="pay")
    paid = await shop.until_order(order_id, "ann", "paid")
    assert sorted(one["status"] for one in paid["payments"]) == ["closed", "paid"]
    await books_close(shop, promises)


async def test_every_way_to_meet_the_provider_opens(shop, till):
    products = {"wechatpay": ["native", "qr"], "alipay": ["qr", "page", "wap", "app"]}
    for product in products[till.provider]:
        order_id = await till.order(f"by-{product}")
        answer = await shop.start_payment(
            order_id, f"by-{product}", provider=till.provider, product=product
        )
        assert (answer.status, answer.body["status"]) == (201, "open"), answer
