"""A refund that the gateway refuses: found, paid out by hand, and then paid a second time."""

import pytest

from tests.journeys.shop import new_key
from tests.waiting import eventually

PRICE = 4_321


@pytest.fixture
async def sale(shop):
    return await shop.open_sale(price_minor=PRICE, limit_per_shopper=9)


async def refund_of(shop, sale, **script):
    """Pay an order, give all of it back, and name the refund."""
    buyer = f"buyer-{new_key()[:8]}"
    order_id = (await shop.buy(sale, buyer))["order_id"]
    await shop.pay(order_id, buyer, script=script)
    await shop.until_order(order_id, buyer, "paid")
    wish = {"amount_minor": PRICE, "reason": "damaged"}
    asked = await shop.operate("POST", f"/orders/{order_id}/refunds", wish)
    assert asked.status == 201, asked
    return asked.body["refund_id"]


async def until_listed(shop, refund, status):
    """Wait until a refund is in the list of a state, whichever page it is on."""

    async def look():
        query = f"/refunds?status={status}&limit=2"
        while True:
            page = await shop.read(query)
            for one in page["items"]:
                assert one["status"] == status
                if one["refund_id"] == refund:
                    return one
            if page["next"] is None:
                return None
            query = f"/refunds?status={status}&limit=2&cursor={page['next']}"

    return await eventually(look, within_seconds=30)


async def close(shop, refund, reference="slip-1", **changes):
    body = {"reference": reference, "reason": "Paid from the till", **changes}
    return await shop.operate("POST", f"/refunds/{refund}/close", body)


async def owed_twice(shop):
    accounts = (await shop.read("/ledger/accounts?limit=100"))["items"]
    [held] = [one for one in accounts if one["code"] == "suspense.double_refund"] or [None]
    return 0 if held is None else held["balance_minor"]


async def test_a_refused_refund_is_found_and_closed_by_hand_once(shop, sale, promises):
    refund = await refund_of(shop, sale, refund="refused")
    await until_listed(shop, refund, "abnormal")

    closed = await close(shop, refund)
    again = await close(shop, refund)
    other = await close(shop, refund, "slip-2")

    assert (closed.status, again.status, other.code) == (200, 200, "refund_settled")
    assert again.body == closed.body
    assert (closed.body["status"], closed.body["by_hand"]) == ("succeeded", "slip-1")
    assert not closed.body["doubled"]
    await until_listed(shop, refund, "succeeded")
    await promises.hold()
    assert await shop.books_balance()


BAD = (
    {"reference": ""},
    {"reference": "a b"},
    {"reference": "x" * 65},
    {"reference": None},
    {"reason": ""},
    {"reason": " "},
    {"reason": "a\nb"},
    {"stranger": 1},
)


async def test_what_is_no_proof_closes_nothing(shop, sale):
    refund = await refund_of(shop, sale, refund="refused")
    await until_listed(shop, refund, "abnormal")

    for change in BAD:
        answer = await close(shop, refund, **change)
        assert (answer.status, answer.code) == (422, "validation_failed"), (change, answer)
    assert (await close(shop, f"{refund[:-2]}99")).code == "not_found"
    assert (await until_listed(shop, refund, "abnormal"))["by_hand"] is None
    assert (await close(shop, refund)).status == 200


async def test_a_refund_that_the_gateway_pays_as_well_is_held_in_suspense(shop, sale, promises):
    refund = await refund_of(shop, sale, refund="held")
    control = f"{shop.run.sandbox}/control/refunds/{refund}"

    async def ended():
        """End it as soon as the gateway has heard of it."""
        return (await shop.ask("POST", control, body={"outcome": "closed"})).status == 202

    await eventually(ended, within_seconds=30)
    await until_listed(shop, refund, "abnormal")
    before = await owed_twice(shop)
    assert (await close(shop, refund)).status == 200

    await shop.ask("POST", control, body={"outcome": "succeed"})

    async def is_told():
        return (await until_listed(shop, refund, "succeeded"))["doubled"]

    async def is_held():
        return await owed_twice(shop) == before + PRICE

    await eventually(is_told, within_seconds=30)
    await eventually(is_held, within_seconds=30)
    await promises.hold()
    assert await shop.books_balance()
