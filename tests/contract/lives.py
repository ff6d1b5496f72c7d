"""Orders that have come as far as a route needs them, so that only the route is judged."""

from typing import Final

from tests.contract.documented import Route
from tests.journeys.shop import Promises, Shop, new_key

PARCEL: Final = {"carrier": "SF", "tracking_number": "SF1000000001"}
DELIVERY: Final = {"receiver": "Ann Lee", "mobile": "+14155550100", "address": "1 Main St"}

# What must have happened to an order, in order, before its route can succeed.
BEFORE: Final = {
    "/v1/orders/{order}/events": ("cancel",),
    "/v1/orders/{order}/confirm-receipt": ("pay", "ship"),
    "/v1/orders/{order}/after-sales": ("pay", "ship"),
    "/v1/orders/{order}/after-sales/{number}/withdraw": ("pay", "ship", "return_and_refund"),
    "/v1/orders/{order}/after-sales/{number}/send-goods": (
        "pay", "ship", "return_and_refund", "approve",
    ),
    "/v1/orders/{order}/after-sales/{number}/confirm-receipt": (
        "pay", "ship", "exchange", "approve", "send-goods", "resend",
    ),
    "/admin/v1/orders/{order}/delivery": ("delivery",),
    "/admin/v1/orders/{order}/review": ("pay",),
    "/admin/v1/orders/{order}/ship": ("pay",),
    "/admin/v1/orders/{order}/refunds": ("pay",),
    "/admin/v1/orders/{order}/risk/release": ("hold",),
    "/admin/v1/orders/{order}/risk/reject": ("hold",),
    "/admin/v1/refunds/{refund}/retry": (),  # a life of its own: ask_refund
    "/admin/v1/refunds/{refund}/close": (),  # of its own too: house_lives
    "/admin/v1/refunds/{refund}/paid-back": (),
    "/admin/v1/orders/{order}/after-sales/{number}/approve": ("pay", "ship", "exchange"),
    "/admin/v1/orders/{order}/after-sales/{number}/refuse": ("pay", "ship", "exchange"),
    "/admin/v1/orders/{order}/after-sales/{number}/settle": ("pay", "ship", "refund"),
    "/admin/v1/orders/{order}/after-sales/{number}/resend": (
        "pay", "ship", "exchange", "approve", "send-goods",
    ),
}  # fmt: skip

BANK_LINE: Final = {
    "reference": "line-1",
    "amount_minor": 1,
    "currency": "CNY",
    "booked_at": "2026-01-02T03:04:05Z",
    "remark": "nobody's",
}
BODIES: Final = {
    "/v1/orders/{order}/payments": {"provider": "sandbox", "product": "qr"},
    "/admin/v1/payments/{payment}/confirm": {
        "amount_minor": 1, "currency": "CNY", "reference": "slip-1", "note": "a test",
    },
    "/admin/v1/refunds/{refund}/close": {"reference": "slip-1", "reason": "a test"},
    "/admin/v1/refunds/{refund}/paid-back": {"reference": "back-1", "note": "a test"},
    "/admin/v1/balances/top-ups": {
        "shopper": "ann", "amount_minor": 1, "currency": "CNY", "reason": "a test",
    },
    "/admin/v1/bank-lines": {
        "lines": [BANK_LINE], "reason": "a test",
    },
    "/admin/v1/bank-lines/{line}/assign": {"payment_id": "0" * 28, "reason": "a test"},
    "/admin/v1/bank-lines/{line}/send-back": {"reference": "return-1", "reason": "a test"},
    "/admin/v1/risk/blocks": {"kind": "shopper", "value": "nobody", "reason": "a test"},
    "/v1/orders/{order}/delivery": DELIVERY,
    "/v1/orders/{order}/invoice-wish": {"title": "Ann Lee"},
    "/v1/orders/{order}/after-sales": {"kind": "refund", "reason": "quality"},
    "/v1/orders/{order}/after-sales/{number}/send-goods": PARCEL,
    "/admin/v1/orders/{order}/ship": PARCEL,
    "/admin/v1/orders/{order}/review": {"decision": "approve"},
    "/admin/v1/orders/{order}/notes": {"text": "a test"},
    "/admin/v1/orders/search": {"mobile": "+14155550100"},
    "/admin/v1/orders/{order}/after-sales/{number}/resend": PARCEL,
    "/admin/v1/sales/{sale}/policy": {"refundable": "before_shipping"},
}  # fmt: skip
"""A body that each of these routes takes."""
PLAIN: Final = {
    "title": "Plain",
    "stock": 5,
    "price_minor": 100,
    "units": 1,
    "amount_minor": 1,
    "reason": "a test",
    "provider": "sandbox",
    "product": "qr",
}
"""A field that is wanted, and what any other route takes for it."""


def good_body(route: Route) -> dict[str, object]:
    """Write a body that would be taken."""
    assert route.body is not None
    if route.path in BODIES:
        return dict(BODIES[route.path])
    return {name: PLAIN[name] for name in route.body.get("required", [])}


async def live(shop: Shop, route: Route, order_id: str, shopper: str = "ann") -> None:
    """Bring a pending order of `shopper` to where `route` can succeed."""
    for step in BEFORE.get(route.path, ()):
        await _take(shop, step, order_id, shopper)


async def ask_refund(shop: Shop, order_id: str, shopper: str = "ann") -> str:
    """Pay a pending order and give a part of it back; name the refund."""
    await _take(shop, "pay", order_id, shopper)
    path = f"/orders/{order_id}/refunds"
    answer = await shop.operate("POST", path, {"amount_minor": 1, "reason": "a test"})
    assert answer.status == 201, answer
    return str(answer.body["refund_id"])


async def block(shop: Shop, shopper: str, effect: str) -> str:
    """Block a shopper from paying and name the block."""
    told = {"kind": "shopper", "value": shopper, "reason": "a test", "effect": effect}
    answer = await shop.operate("POST", "/risk/blocks", told)
    assert answer.status == 200, answer
    return str(answer.body["block_id"])


async def _hold(shop: Shop, order_id: str, shopper: str) -> None:
    """Have a payment held; the block that did it is taken back, so nobody else meets it."""
    named = await block(shop, shopper, "hold")
    held = await shop.ask(
        "POST",
        f"{shop.run.public}/v1/orders/{order_id}/payments",
        token=shop.token(shopper),
        body={"provider": "sandbox", "product": "qr"},
        Idempotency_Key=new_key(),
    )
    assert held.code == "payment_held", held
    removed = await shop.operate("POST", f"/risk/blocks/{named}/remove", {"reason": "a test"})
    assert removed.status == 204, removed


async def rest(shop: Shop, route: Route) -> None:
    """Wait until what a life has set going is over, so that nobody counts its rows."""
    if route.path in BEFORE:
        await Promises(shop).hold()


async def _take(shop: Shop, step: str, order_id: str, shopper: str) -> None:
    base = f"{shop.run.public}/v1/orders/{order_id}"
    token = shop.token(shopper)
    match step:
        case "pay":
            await shop.pay(order_id, shopper)
            await shop.until_order(order_id, shopper, "paid")
            return
        case "hold":
            await _hold(shop, order_id, shopper)
            return
        case "cancel":
            await shop.cancel(order_id, shopper)
            await shop.until_order(order_id, shopper, "closed")
            return
        case "ship":
            answer = await shop.operate("POST", f"/orders/{order_id}/ship", PARCEL)
        case "delivery":
            answer = await shop.ask("PUT", f"{base}/delivery", token=token, body=DELIVERY)
        case "send-goods":
            url = f"{base}/after-sales/1/send-goods"
            answer = await shop.ask("POST", url, token=token, body=PARCEL)
        case "approve" | "resend":
            body = PARCEL if step == "resend" else None
            answer = await shop.operate("POST", f"/orders/{order_id}/after-sales/1/{step}", body)
        case _:
            claim = {"kind": step, "reason": "quality"}
            answer = await shop.ask(
                "POST",
                f"{base}/after-sales",
                token=token,
                body=claim,
                Idempotency_Key=new_key(),
            )
    assert answer.status in {200, 201}, (step, answer)
