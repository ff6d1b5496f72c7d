"""Payments, refunds, balances and bank lines of the house, as far as a route needs them."""

from typing import Any

from tests.journeys.shop import Shop, new_key
from tests.waiting import eventually

PRICE = 100
PAID_BACK = {"reference": "back-1", "note": "a test"}


async def prepare(shop: Shop, path: str) -> tuple[str, dict[str, Any]]:
    """Make what a route of the house needs; return its path and what its body must say."""
    if "{balance}" in path:
        return path.replace("{balance}", await _balance(shop)), {}
    if path.endswith("/confirm") and "{payment}" in path:
        payment, _ = await _start(shop, "offline")
        told = {"amount_minor": PRICE, "reference": new_key()}
        return path.replace("{payment}", payment), told
    if path.endswith("/paid-back"):
        return path.replace("{refund}", await _told_refund(shop)), {}
    if path.endswith("/close") and "{refund}" in path:
        return path.replace("{refund}", await _refused_refund(shop)), {}
    if "{line}" in path:
        told = {}
        if path.endswith("/assign"):
            told["payment_id"], _ = await _start(shop, "transfer")
        return path.replace("{line}", await _line(shop)), told
    return path, {}


async def _start(shop: Shop, provider: str) -> tuple[str, str]:
    """Start a payment of an order; return its number and the order's."""
    sale = await shop.open_sale(price_minor=PRICE)
    order_id = str((await shop.buy(sale, "ann"))["order_id"])
    started = await shop.start_payment(order_id, "ann", provider=provider, product="direct")
    assert started.status == 201, started
    return str(started.body["payment_id"]), order_id


async def _balance(shop: Shop) -> str:
    body = {"shopper": "ann", "amount_minor": 1, "currency": "CNY", "reason": "a test"}
    answer = await shop.operate("POST", "/balances/top-ups", body)
    return str(answer.body["balance_id"])


async def _line(shop: Shop) -> str:
    reference = new_key()
    line = {
        "reference": reference,
        "amount_minor": PRICE,
        "currency": "CNY",
        "booked_at": "2026-01-02T03:04:05Z",
    }
    answer = await shop.operate("POST", "/bank-lines", {"lines": [line], "reason": "a test"})
    assert answer.status == 201, answer
    return reference


async def _told_refund(shop: Shop) -> str:
    """Name a refund whose proof was told; telling it again is the same act."""
    payment, order_id = await _start(shop, "offline")
    proof = {"amount_minor": PRICE, "currency": "CNY", "reference": new_key(), "note": "cash"}
    await shop.operate("POST", f"/payments/{payment}/confirm", proof)
    await shop.until_order(order_id, "ann", "paid")
    asked = {"amount_minor": PRICE, "reason": "a test"}
    answer = await shop.operate("POST", f"/orders/{order_id}/refunds", asked)

    refund = str(answer.body["refund_id"])

    async def is_there() -> bool:
        told = await shop.operate("POST", f"/refunds/{refund}/paid-back", PAID_BACK)
        return told.status == 200

    await eventually(is_there)
    return refund


async def _refused_refund(shop: Shop) -> str:
    """Name a refund that the gateway refused: its merchant's balance is too small."""
    sale = await shop.open_sale(price_minor=PRICE)
    order_id = str((await shop.buy(sale, "ann"))["order_id"])
    await shop.pay(order_id, "ann", script={"refund": "refused"})
    await shop.until_order(order_id, "ann", "paid")
    asked = {"amount_minor": PRICE, "reason": "a test"}
    refund = (await shop.operate("POST", f"/orders/{order_id}/refunds", asked)).body["refund_id"]

    async def is_abnormal() -> bool:
        page = await shop.read("/refunds?status=abnormal&limit=100")
        return refund in [one["refund_id"] for one in page["items"]]

    await eventually(is_abnormal)
    return str(refund)
