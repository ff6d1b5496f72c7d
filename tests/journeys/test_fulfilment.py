"""Every way from a payment to an end, over HTTP, with all workers."""

import pytest

from tests.journeys.shop import new_key
from tests.waiting import eventually

PRICE = 1_999
PARCEL = {"carrier": "SF", "tracking_number": "SF1000000001"}
DELIVERY = {
    "receiver": "王小明",
    "mobile": "13800138000",
    "address": "北京市朝阳区建国路 88 号 3 单元",
}


class Orders:
    """What a shopper and an operator do with the orders of one sale."""

    def __init__(self, shop, sale):
        self.shop = shop
        self.sale = sale

    async def policy(self, **terms):
        answer = await self.shop.operate("PUT", f"/sales/{self.sale}/policy", terms)
        assert answer.status == 200, answer
        return answer.body

    async def buy(self, shopper="ann", **body):
        return (await self.shop.buy(self.sale, shopper, **body))["order_id"]

    async def paid(self, shopper="ann", **body):
        order_id = await self.buy(shopper, **body)
        await self.shop.pay(order_id, shopper)
        await self.shop.until_order(order_id, shopper, "paid")
        return order_id

    async def shipped(self, shopper="ann", **body):
        order_id = await self.paid(shopper, **body)
        answer = await self.ship(order_id)
        assert (answer.status, answer.body["status"]) == (200, "shipped"), answer
        return order_id

    async def ship(self, order_id, **parcel):
        return await self.shop.operate("POST", f"/orders/{order_id}/ship", {**PARCEL, **parcel})

    async def act(self, order_id, path, body=None, shopper="ann", method="POST", **headers):
        return await self.shop.ask(
            method,
            f"{self.shop.run.public}/v1/orders/{order_id}/{path}",
            token=self.shop.token(shopper),
            body=body,
            **headers,
        )

    async def status(self, order_id, shopper="ann"):
        return (await self.shop.order(order_id, shopper)).body["status"]

    async def timeline(self, order_id):
        told = (await self.shop.read(f"/orders/{order_id}"))["timeline"]
        assert [one["number"] for one in told] == list(range(1, len(told) + 1))
        return [one["event"] for one in told]

    async def until_refunded(self, order_id, shopper="ann"):
        """Wait until the provider has sent every refund back; return their amounts."""

        async def look():
            refunds = (await self.shop.order(order_id, shopper)).body["refunds"]
            done = [one["amount_minor"] for one in refunds if one["status"] == "succeeded"]
            return done if refunds and len(done) == len(refunds) else None

        return await eventually(look, within_seconds=30)


@pytest.fixture
async def orders(shop):
    return Orders(shop, await shop.open_sale(price_minor=PRICE, limit_per_shopper=9))


def told(answer):
    return answer.status, answer.code


async def test_a_paid_order_is_shipped_received_and_done(orders, shop, promises):
    order_id = await orders.paid()

    early = await orders.act(order_id, "confirm-receipt")
    assert told(early) == (409, "order_not_confirmable")
    first = await orders.ship(order_id)
    again = await orders.ship(order_id)
    assert (first.status, again.status, again.body["status"]) == (200, 200, "shipped")
    other = await orders.ship(order_id, tracking_number="SF2")
    assert told(other) == (409, "order_not_shippable")
    done = await orders.act(order_id, "confirm-receipt")
    repeated = await orders.act(order_id, "confirm-receipt")
    assert (done.status, repeated.status, repeated.body["status"]) == (200, 200, "completed")
    late = await orders.ship(order_id, tracking_number="SF2")
    assert told(late) == (409, "order_not_shippable")

    assert await orders.timeline(order_id) == ["placed", "payment_captured", "shipped", "received"]
    whole = await shop.read(f"/orders/{order_id}/fulfilment")
    assert whole["shipment"]["tracking_number"] == PARCEL["tracking_number"]
    assert whole["shipment"]["received_at"] is not None
    await promises.hold()
    assert await shop.books_balance()


async def test_who_says_nothing_has_received_it_when_the_time_is_over(orders, promises):
    await orders.policy(confirm_after_seconds=1)
    order_id = await orders.shipped()

    await orders.shop.until_order(order_id, "ann", "completed")
    assert await orders.timeline(order_id) == ["placed", "payment_captured", "shipped", "received"]
    await promises.hold()


async def test_an_unpaid_order_is_neither_shipped_nor_reviewed_nor_received(orders, promises):
    order_id = await orders.buy()

    assert told(await orders.ship(order_id)) == (409, "order_not_shippable")
    review = await orders.shop.operate(
        "POST", f"/orders/{order_id}/review", {"decision": "approve"}
    )
    assert told(review) == (409, "order_not_reviewable")
    receipt = await orders.act(order_id, "confirm-receipt")
    assert told(receipt) == (409, "order_not_confirmable")
    claim = {"kind": "refund", "reason": "quality"}
    case = await orders.act(order_id, "after-sales", claim, Idempotency_Key=new_key())
    assert told(case) == (409, "not_refundable")
    assert await orders.timeline(order_id) == ["placed"]
    cancelled = [await orders.act(order_id, "cancel") for _ in range(2)]
    assert [one.status for one in cancelled] == [200, 200]
    await orders.shop.until_order(order_id, "ann", "closed")
    assert await orders.timeline(order_id) == ["placed", "close_asked", "provider_closed"]
    locked = await orders.act(order_id, "delivery", DELIVERY, method="PUT")
    assert told(locked) == (409, "delivery_locked")
    await promises.hold()


async def test_a_paid_amount_stays_unless_the_policy_gives_it_back(orders, shop, promises):
    order_id = await orders.paid()
    assert told(await orders.act(order_id, "cancel")) == (409, "order_not_cancellable")
    assert await orders.status(order_id) == "paid"

    await orders.policy(refundable="before_shipping")
    cancelled = [await orders.act(order_id, "cancel") for _ in range(2)]
    assert [(one.status, one.body["status"]) for one in cancelled] == [(200, "refunded")] * 2
    assert cancelled[0].body["reason"] == "cancelled_by_shopper"
    assert await orders.until_refunded(order_id) == [PRICE]
    assert told(await orders.ship(order_id)) == (409, "order_not_shippable")
    await shop.until_stock(orders.sale, remaining=10, reserved=0, paid=0)

    shipped = await orders.shipped()
    assert told(await orders.act(shipped, "cancel")) == (409, "order_not_cancellable")
    await promises.hold()
    assert await shop.books_balance()


async def test_a_sale_is_created_with_its_policy(shop, promises):
    half = {"title": "Tea", "stock": 1, "price_minor": PRICE, "refundable": "window"}
    refused = await shop.operate("POST", "/sales", half)
    assert told(refused) == (422, "validation_failed")
    assert [one["path"] for one in refused.body["errors"]] == ["$.refund_window_seconds"]

    policy = {
        "refundable": "window",
        "refund_window_seconds": 600,
        "review": "every",
        "review_from_minor": None,
        "confirm_after_seconds": 86_400,
    }
    sale = await shop.open_sale(price_minor=PRICE, **policy)
    assert await shop.read(f"/sales/{sale}/policy") == {"sale": sale, **policy}
    assert (await shop.read(f"/sales/{sale}")).items() >= policy.items()
    shown = (await shop.ask("GET", f"{shop.run.public}/v1/sales/{sale}")).body
    assert (shown["refundable"], shown["refund_window_seconds"]) == ("window", 600)

    orders = Orders(shop, sale)
    order_id = await orders.paid()
    waiting = await orders.ship(order_id)
    assert (*told(waiting), waiting.body["awaits"]) == (409, "order_not_shippable", "review")
    assert (await orders.act(order_id, "cancel")).body["status"] == "refunded"
    assert await orders.until_refunded(order_id) == [PRICE]
    await promises.hold()


async def test_the_window_of_a_policy_closes(orders, promises):
    await orders.policy(refundable="window", refund_window_seconds=1)
    order_id = await orders.paid()

    async def is_over():
        answer = await orders.act(order_id, "cancel", shopper="bob")
        assert answer.code == "order_not_found", "another's order"
        paid_at = (await orders.shop.order(order_id, "ann")).body["paid_at"]
        now = (await orders.shop.ask("GET", f"{orders.shop.run.public}/v1/time")).body["now"]
        return now[:19] > paid_at[:19] and int(now[17:19]) != int(paid_at[17:19]) + 1

    await eventually(is_over, within_seconds=10)
    assert told(await orders.act(order_id, "cancel")) == (409, "order_not_cancellable")
    await orders.policy(refundable="window", refund_window_seconds=3_600)
    assert (await orders.act(order_id, "cancel")).body["status"] == "refunded"
    assert await orders.until_refunded(order_id) == [PRICE]
    await promises.hold()


async def test_a_review_stands_between_payment_and_shipping(orders, shop, promises):
    await orders.policy(review="from_amount", review_from_minor=2 * PRICE)
    small, large = await orders.paid(), await orders.paid("bob", quantity=2)
    assert (await orders.ship(small)).status == 200

    waiting = await orders.ship(large)
    assert (*told(waiting), waiting.body["awaits"]) == (409, "order_not_shippable", "review")
    assert (await shop.read(f"/orders/{large}/fulfilment"))["review"]["state"] == "waiting"

    async def decide(decision, **reason):
        body = {"decision": decision, **reason}
        return await shop.operate("POST", f"/orders/{large}/review", body)

    assert told(await decide("hold")) == (422, "validation_failed")
    held = [await decide("hold", reason="an odd address") for _ in range(2)]
    assert [one.body["review"]["state"] for one in held] == ["held", "held"]
    assert told(await orders.ship(large)) == (409, "order_not_shippable")
    assert (await decide("approve")).body["review"]["state"] == "approved"
    assert (await orders.ship(large)).body["status"] == "shipped"
    assert told(await decide("reject", reason="late")) == (409, "order_not_reviewable")
    assert (await orders.timeline(large))[2:] == ["reviewed", "reviewed", "shipped"]
    await promises.hold()


async def test_a_rejected_order_is_refunded_and_its_units_are_sold_again(orders, shop, promises):
    await orders.policy(review="every")
    order_id = await orders.paid()

    body = {"decision": "reject", "reason": "looks like a bot"}
    rejected = [await shop.operate("POST", f"/orders/{order_id}/review", body) for _ in range(2)]
    assert [one.status for one in rejected] == [200, 200]
    order = rejected[0].body["order"]
    assert (order["status"], order["reason"]) == ("refunded", "review_rejected")
    assert await orders.until_refunded(order_id) == [PRICE]
    assert (await orders.timeline(order_id))[2:] == ["reviewed", "refunded_in_full"]
    await shop.until_stock(orders.sale, remaining=10, reserved=0)
    await promises.hold()
    assert await shop.books_balance()


async def test_notes_and_invoice_wishes_are_kept_beside_the_order(orders, shop):
    order_id = await orders.buy()
    key = new_key()
    for _ in range(2):
        note = await shop.operate(
            "POST", f"/orders/{order_id}/notes", {"text": "called back"}, Idempotency_Key=key
        )
        assert note.status == 201
    other = await shop.operate(
        "POST", f"/orders/{order_id}/notes", {"text": "another"}, Idempotency_Key=key
    )
    assert told(other) == (422, "idempotency_mismatch")
    company = {"kind": "company", "title": "Acme Co.", "tax_number": "91110000600037341L"}
    for wish in ({"title": "王小明"}, company):
        assert (await orders.act(order_id, "invoice-wish", wish, method="PUT")).status == 200
    half = await orders.act(
        order_id, "invoice-wish", {"kind": "company", "title": "Acme"}, method="PUT"
    )
    assert told(half) == (422, "validation_failed")

    whole = await shop.read(f"/orders/{order_id}/fulfilment")
    assert [one["text"] for one in whole["notes"]] == ["called back"]
    assert whole["invoice"] == {
        "kind": "company",
        "title": "Acme Co.",
        "tax_number": "9111**********341L",
    }
