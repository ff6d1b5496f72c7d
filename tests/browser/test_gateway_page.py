"""The sandbox gateway's page, pressed by a person."""

from urllib.parse import urlsplit

import pytest

from tests.waiting import eventually

pytestmark = pytest.mark.browser


@pytest.fixture
async def payment(shop):
    """An order of ann's that waits at the gateway: its id and its page."""
    sale = await shop.open_sale()
    order_id = (await shop.buy(sale, "ann"))["order_id"]
    started = await shop.start_payment(order_id, "ann")
    return order_id, started.body["action"]["page"]


async def until_told(browser, sentence):
    async def look():
        return await browser.text("[role=status]") == sentence

    await eventually(look)


async def test_pressing_pay_pays_the_order(shop, browser, payment):
    order_id, page = payment
    await browser.open(page)
    await until_told(browser, "Waiting for you to pay.")
    order = (await shop.order(order_id, "ann")).body
    assert f"{order['total_minor'] / 100:.2f}" in await browser.text(".amount")
    assert await browser.count("figure svg") == 1, "a code to scan"

    await browser.press("button.pay")
    await until_told(browser, "Paid. Thank you.")
    assert await browser.count("button") == 0, "nothing to press a second time"
    paid = await shop.until_order(order_id, "ann", "paid")

    assert [one["amount_minor"] for one in paid["payments"]] == [order["total_minor"]]
    assert await browser.complaints() == []
    assert await browser.hosts() == {urlsplit(page).netloc}


async def test_pressing_decline_ends_this_payment_and_not_the_order(shop, browser, payment):
    order_id, page = payment
    await browser.open(page)
    await browser.press("button[value=decline]")
    await until_told(browser, "Closed: this can no longer be paid.")
    assert await browser.count("button") == 0

    again = await shop.start_payment(order_id, "ann")
    await browser.open(again.body["action"]["page"])
    await browser.press("button.pay")
    await shop.until_order(order_id, "ann", "paid")
    assert await browser.complaints() == []
