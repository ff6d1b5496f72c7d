"""Every way of an after-sale case, over HTTP, with all workers."""

import pytest

from tests.journeys.shop import new_key
from tests.journeys.test_fulfilment import PRICE, Orders, told

BACK = {"carrier": "YTO", "tracking_number": "YT200"}
OUT = {"carrier": "SF", "tracking_number": "SF300"}


class Case:
    """One case, from both sides."""

    def __init__(self, orders, order_id, number):
        self.orders = orders
        self.order_id = order_id
        self.number = number

    async def ours(self, act, body=None):
        path = f"/orders/{self.order_id}/after-sales/{self.number}/{act}"
        return await self.orders.shop.operate("POST", path, body)

    async def theirs(self, act, body=None, shopper="ann"):
        path = f"after-sales/{self.number}/{act}"
        return await self.orders.act(self.order_id, path, body, shopper)


@pytest.fixture
async def orders(shop):
    return Orders(shop, await shop.open_sale(price_minor=PRICE, limit_per_shopper=9))


@pytest.fixture
async def claim(orders):
    """Open cases."""

    async def open_case(order_id, kind, key=None, **more):
        body = {"kind": kind, "reason": "quality", **more}
        return await orders.act(order_id, "after-sales", body, Idempotency_Key=key or new_key())

    return open_case


async def opened(orders, claim, kind, order_id=None, **more):
    order_id = order_id or await orders.shipped()
    answer = await claim(order_id, kind, **more)
    assert answer.status == 201, answer
    return Case(orders, order_id, answer.body["number"])


def states(answers):
    return [(one.status, one.body.get("state")) for one in answers]


async def test_a_part_of_the_money_goes_back_and_never_more_than_was_paid(orders, claim, promises):
    case = await opened(orders, claim, "refund", amount_minor=500)
    order_id = case.order_id

    settled = [await case.ours("settle") for _ in range(2)]
    assert states(settled) == [(200, "settled")] * 2
    assert settled[0].body["refund_id"] == settled[1].body["refund_id"]
    assert await orders.until_refunded(order_id) == [500]
    too_much = await claim(order_id, "refund", amount_minor=PRICE - 499)
    assert told(too_much) == (409, "refund_exceeds_paid")
    rest = await opened(orders, claim, "refund", order_id, amount_minor=PRICE - 500)
    assert (await rest.ours("settle")).status == 200
    assert sorted(await orders.until_refunded(order_id)) == [500, PRICE - 500]
    assert told(await claim(order_id, "refund", amount_minor=1)) == (409, "not_refundable")

    order = (await orders.shop.order(order_id, "ann")).body
    assert (order["status"], order["refunded_minor"]) == ("shipped", PRICE)
    await promises.hold()
    assert await orders.shop.books_balance()


async def test_goods_come_back_and_the_money_follows(orders, claim, promises):
    case = await opened(orders, claim, "return_and_refund")

    assert told(await case.theirs("send-goods", BACK)) == (409, "after_sale_conflict")
    assert told(await case.ours("settle")) == (409, "after_sale_conflict")
    assert states([await case.ours("approve") for _ in range(2)]) == [(200, "approved")] * 2
    sent = [await case.theirs("send-goods", BACK) for _ in range(2)]
    assert states(sent) == [(200, "goods_sent")] * 2
    assert told(await case.theirs("send-goods", OUT)) == (409, "after_sale_conflict")
    assert told(await case.theirs("withdraw")) == (409, "after_sale_conflict")
    assert told(await case.theirs("confirm-receipt")) == (409, "after_sale_conflict")
    assert (await case.ours("settle")).body["state"] == "settled"

    assert await orders.until_refunded(case.order_id) == [PRICE]
    events = await orders.timeline(case.order_id)
    assert events[3:] == [*["after_sale_moved"] * 3, "refund_requested", "after_sale_moved"]
    await promises.hold()
    assert await orders.shop.books_balance()


async def test_goods_are_exchanged_and_no_money_moves(orders, claim, promises):
    case = await opened(orders, claim, "exchange")

    assert (await case.ours("approve")).status == 200
    assert (await case.theirs("send-goods", BACK)).status == 200
    assert told(await case.theirs("confirm-receipt")) == (409, "after_sale_conflict")
    assert (await case.ours("resend", OUT)).body["resent_by"] == OUT
    done = [await case.theirs("confirm-receipt") for _ in range(2)]
    assert states(done) == [(200, "settled")] * 2

    order = (await orders.shop.order(case.order_id, "ann")).body
    assert (order["refunds"], order["refunded_minor"]) == ([], 0)
    await promises.hold()


@pytest.mark.parametrize("kind", ["refund", "return_and_refund", "exchange"])
async def test_a_case_is_withdrawn_or_refused_and_another_may_follow(orders, claim, promises, kind):
    case = await opened(orders, claim, kind)
    assert told(await claim(case.order_id, kind)) == (409, "after_sale_conflict")
    assert states([await case.theirs("withdraw") for _ in range(2)]) == [(200, "withdrawn")] * 2

    second = await opened(orders, claim, kind, case.order_id)
    assert second.number == case.number + 1
    assert states([await second.ours("refuse") for _ in range(2)]) == [(200, "refused")] * 2
    assert told(await second.ours("approve")) == (409, "after_sale_conflict")
    listed = await orders.act(case.order_id, "after-sales", method="GET")
    assert [one["state"] for one in listed.body["items"]] == ["withdrawn", "refused"]
    await promises.hold()


async def test_what_came_back_wrong_is_refused(orders, claim):
    case = await opened(orders, claim, "return_and_refund")
    await case.ours("approve")
    await case.theirs("send-goods", BACK)

    assert (await case.ours("refuse")).body["state"] == "refused"
    assert (await orders.shop.order(case.order_id, "ann")).body["refunds"] == []


async def test_the_same_key_opens_one_case_and_other_content_is_refused(orders, claim):
    order_id, key = await orders.shipped(), new_key()

    first, again = [await claim(order_id, "refund", key, amount_minor=5) for _ in range(2)]
    assert first.body == again.body
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await claim(order_id, "refund", key, amount_minor=6)
    assert told(other) == (422, "idempotency_mismatch")
    money = await claim(order_id, "exchange", amount_minor=5)
    assert told(money) == (422, "validation_failed")


async def test_nobody_touches_another_s_case(orders, claim):
    case = await opened(orders, claim, "refund")

    assert told(await case.theirs("withdraw", shopper="bob")) == (404, "order_not_found")
    for number in ("0", "2", "99", "100", "x", "-1"):
        missing = Case(orders, case.order_id, number)
        assert told(await missing.theirs("withdraw")) == (404, "after_sale_not_found")


async def test_an_open_case_stops_the_clock_of_the_receipt(orders, claim):
    await orders.policy(confirm_after_seconds=2)
    disputed = await orders.shipped()
    case = await opened(orders, claim, "return_and_refund", disputed)
    silent = await orders.shipped("bob")

    await orders.shop.until_order(silent, "bob", "completed")
    assert await orders.status(disputed) == "shipped"
    await case.theirs("withdraw")
    await orders.shop.until_order(disputed, "ann", "completed")
