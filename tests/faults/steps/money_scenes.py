"""
Money under way when a role dies: over WeChat Pay and Alipay, and back to the shopper.

As in scenes.py; what differs is that the gateway and the clients of the service act while a role
dies, and that the gateway is asked afterwards how often it did something.
"""

from typing import Final

from app.embedded.probes import listens
from app.kernel.ids import OrderKey
from app.orders.order import OrderState
from app.payments.operator_refunds import Asked, RefundAsk, ask_refund
from app.sales.policy import PolicyTerms, Refundable
from app.sandbox.records import Callback, Refund
from app.sandbox.schedules import ALIPAY_RETRY_SECONDS, WECHATPAY_RETRY_SECONDS
from tests.faults.steps.scenes import (
    STOCK,
    Finished,
    all_for_sale,
    has_state,
    payment_started,
)
from tests.faults.steps.site import REST_SECONDS, Site
from tests.waiting import eventually

RETRIES: Final = {
    "wechatpay": len(WECHATPAY_RETRY_SECONDS),
    "alipay": len(ALIPAY_RETRY_SECONDS),
}


async def wechatpay_told(site: Site) -> Finished:
    """A shopper pays with WeChat Pay, which tells it until we acknowledge it in its words."""
    return await _told(site, "wechatpay")


async def alipay_told(site: Site) -> Finished:
    """A shopper pays with Alipay, which tells it until it hears `success`."""
    return await _told(site, "alipay")


async def wechatpay_refund_asked(site: Site) -> Finished:
    """An order that was paid with WeChat Pay is refunded; the refund waits for its sender."""
    return await _refund_waits(site, "wechatpay")


async def alipay_refund_asked(site: Site) -> Finished:
    """An order that was paid with Alipay is refunded; the refund waits for its sender."""
    return await _refund_waits(site, "alipay")


async def wechatpay_refund_told(site: Site) -> Finished:
    """WeChat Pay tells of a refund until we acknowledge it; its sender may know already."""
    is_refunded = await wechatpay_refund_asked(site)

    async def finished() -> bool:
        payment, *refund = notices_over(site, "wechatpay")
        if [_was_acknowledged_late(one) for one in refund] != [True]:
            return False
        return payment.done and await is_refunded()

    return finished


async def operator_refunds(site: Site) -> Finished:
    """An operator gives the money of an order back, and asks until there is an answer."""
    key = await _paid(site, "sandbox")
    price_minor = site.sale.sale.price_minor

    async def operator() -> None:
        refund = await site.insist(
            site.admin_port,
            f"/admin/v1/orders/{site.order_id(key)}/refunds",
            site.secrets.admin_token,
            {"amount_minor": price_minor, "reason": "goodwill"},
        )
        assert refund["amount_minor"] == price_minor

    site.begin(operator())
    is_refunded = refunded_once(site, key)

    async def finished() -> bool:
        acts = await site.sale.value("SELECT count(*) FROM audit_rows WHERE act = 'refund asked'")
        return site.clients_are_done() and acts == 1 and await is_refunded()

    return finished


async def paid_order_cancelled(site: Site) -> Finished:
    """A shopper cancels an order that is paid, and asks until there is an answer."""
    key = await _paid(site, "sandbox", PolicyTerms(refundable=Refundable.BEFORE_SHIPPING))

    async def shopper() -> None:
        order = await site.insist(
            site.public_port,
            f"/v1/orders/{site.order_id(key)}/cancel",
            site.token_of(site.accepted[key]),
        )
        assert order["status"] == OrderState.REFUNDED

    site.begin(shopper())
    is_refunded = refunded_once(site, key)

    async def finished() -> bool:
        return site.clients_are_done() and await is_refunded()

    return finished


def refunded_once(site: Site, key: OrderKey) -> Finished:
    """
    Everything has happened once: at the gateway, among the facts, to the order and to the stock.

    The rows of the refund and what the order counts as refunded are compared by the audit.
    """
    is_refunded = has_state(site, key, OrderState.REFUNDED)
    has_all = all_for_sale(site, STOCK)

    async def finished() -> bool:
        given_back = [one.amount_minor for one in site.remembered(Refund)]
        facts = await facts_of(site)
        expected = {"payment_captured": 1, "refund_requested": 1, "refund_succeeded": 1}
        if given_back != [site.sale.sale.price_minor] or facts != expected:
            return False
        return await is_refunded() and await has_all()

    return finished


def notices_over(site: Site, provider: str) -> list[Callback]:
    """What the gateway tells us in one protocol, the oldest news first."""
    return [one for one in site.remembered(Callback) if one.wire == provider]


async def facts_of(site: Site) -> dict[str, int]:
    """Count the facts that were written for the ledger, by kind."""
    found = await site.sale.rows("SELECT kind, count(*) AS facts FROM outbox GROUP BY kind")
    return {row["kind"]: row["facts"] for row in found}


async def _told(site: Site, provider: str) -> Finished:
    key, number = await payment_started(site, provider)

    async def shopper() -> None:
        """Pay as soon as somebody is there to hear of it, so that tries remain after the crash."""
        await eventually(lambda: listens(site.public_port), within_seconds=REST_SECONDS)
        await site.pay(number)

    site.begin(shopper())
    is_paid = has_state(site, key, OrderState.PAID)

    async def finished() -> bool:
        if not site.clients_are_done() or await facts_of(site) != {"payment_captured": 1}:
            return False
        notices = notices_over(site, provider)
        return [_was_acknowledged_late(one) for one in notices] == [True] and await is_paid()

    return finished


def _was_acknowledged_late(notice: Callback) -> bool:
    """Whether the gateway took our answer to a try after the first, and did not just give up."""
    return notice.done and 2 <= notice.tries <= RETRIES[notice.wire]


async def _refund_waits(site: Site, provider: str) -> Finished:
    key = await _paid(site, provider)
    ask = RefundAsk(
        order_id=site.order_id(key),
        idempotency_key="refund-0000000001",
        amount_minor=site.sale.sale.price_minor,
        reason="goodwill",
        actor="test",
    )
    assert isinstance(await ask_refund(site.stage, ask), Asked)
    return refunded_once(site, key)


async def _paid(site: Site, provider: str, policy: PolicyTerms | None = None) -> OrderKey:
    """Sell one order, and let it be paid."""
    key, number = await payment_started(site, provider, policy=policy or PolicyTerms())
    async with site.serving():
        await site.pay(number)
        await eventually(has_state(site, key, OrderState.PAID))
    return key
