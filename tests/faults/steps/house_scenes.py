"""
Money of the house under way when a role dies: its rows are committed, the order's shard knows not.

As in money_scenes.py; what a gateway would remember stands beside the books here.
"""

from dataclasses import replace
from typing import Final

from app.kernel.clock import SystemClock
from app.kernel.ids import OrderKey
from app.orders.order import OrderState
from app.payments.operator_refunds import Asked, RefundAsk, ask_refund
from app.payments.provider import Product
from app.payments.refunds import send_refunds_once
from app.payments.stage import Providers
from app.payments.start import PaymentWish, Started, start_payment
from app.sales.store import Act
from app.settlement.house.desk import House, Proof, Settled
from app.settlement.house.provider import open_house
from tests.faults.steps.money_scenes import facts_of
from tests.faults.steps.scenes import Finished, has_state
from tests.faults.steps.site import Site

PROOF: Final = {"reference": "slip-1", "note": "cash at the desk"}
COUNT_ACTS: Final = "SELECT count(*) FROM audit_rows WHERE act = $1"
COUNT_SPENT: Final = """
SELECT count(*) FROM balance_entries e JOIN balances b ON b.id = e.balance_id
WHERE e.kind = 'payment' AND b.balance_minor = 0"""


async def balance_spent(site: Site) -> Finished:
    """A shopper pays from a balance, and asks until there is an answer."""
    key = await _sold(site)
    shopper, price_minor = site.accepted[key], site.sale.sale.price_minor
    gift = Act(actor="test", reason="gift")
    await _house(site).top_up("top-up-0000000001", shopper, (price_minor, "CNY"), gift)

    async def spends() -> None:
        await site.insist(
            site.public_port,
            f"/v1/orders/{site.order_id(key)}/payments",
            site.token_of(shopper),
            {"provider": "balance", "product": Product.DIRECT},
        )

    site.begin(spends())
    return _once(site, key, OrderState.PAID, {"payment_captured": 1}, (COUNT_SPENT,))


async def proof_shown(site: Site) -> Finished:
    """An operator confirms a payment at the desk, and asks until there is an answer."""
    key = await _sold(site)
    number = await _started(site, key)
    paid = {"amount_minor": site.sale.sale.price_minor, "currency": "CNY", **PROOF}

    async def confirms() -> None:
        path = f"/admin/v1/payments/{number}/confirm"
        await site.insist(site.admin_port, path, site.secrets.admin_token, paid)

    site.begin(confirms())
    counted = (COUNT_ACTS, "payment confirmed")
    return _once(site, key, OrderState.PAID, {"payment_captured": 1}, counted)


async def paid_back_by_hand(site: Site) -> Finished:
    """An operator pays a refund back at the desk, and says so until there is an answer."""
    key = await _sold(site)
    house, price_minor = _house(site), site.sale.sale.price_minor
    proof = Proof(reference="slip-1", note="cash", actor="test")
    number = await _started(site, key)
    assert isinstance(await house.confirm_offline(number, price_minor, "CNY", proof), Settled)
    ask = RefundAsk(
        order_id=site.order_id(key),
        idempotency_key="refund-0000000001",
        amount_minor=price_minor,
        reason="goodwill",
        actor="test",
    )
    asked = await ask_refund(house.stage, ask)
    assert isinstance(asked, Asked)
    await send_refunds_once(house.stage)

    async def pays_back() -> None:
        path = f"/admin/v1/refunds/{asked.refund.number}/paid-back"
        await site.insist(site.admin_port, path, site.secrets.admin_token, PROOF)

    site.begin(pays_back())
    facts = {"payment_captured": 1, "refund_requested": 1, "refund_succeeded": 1}
    counted = (COUNT_ACTS, "refund paid back")
    return _once(site, key, OrderState.REFUNDED, facts, counted)


def _house(site: Site) -> House:
    """The house in this process, before any role runs."""
    providers = Providers(open_house(site.ledger, SystemClock(), ""))
    return House(site.ledger, replace(site.stage, providers=providers))


async def _sold(site: Site) -> OrderKey:
    await site.sale.open()
    (key,) = await site.buy(1)
    await site.sale.flush()
    return key


async def _started(site: Site, key: OrderKey) -> str:
    wish = PaymentWish(
        order_id=site.order_id(key),
        shopper=site.accepted[key],
        idempotency_key="pay-0000000000000001",
        provider="offline",
        product=Product.DIRECT,
    )
    started = await start_payment(_house(site).stage, wish)
    assert isinstance(started, Started), started
    return started.payment.payment_id


def _once(
    site: Site,
    key: OrderKey,
    state: OrderState,
    facts: dict[str, int],
    counted: tuple[str, ...],
) -> Finished:
    """Whether it was answered, and has happened once: to the order, in the facts, at the house."""
    has_come_so_far = has_state(site, key, state)

    async def finished() -> bool:
        if not site.clients_are_done() or await facts_of(site) != facts:
            return False
        async with site.ledger.connection() as connection:
            times = await connection.fetchval(*counted)
        return times == 1 and await has_come_so_far()

    return finished
