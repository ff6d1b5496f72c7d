"""After-sale cases that come after one another."""

from app.fulfilment.after_sale import AfterSaleEvent, AfterSaleKind, AfterSaleReason, Parcel
from app.fulfilment.claims import CaseRefused, Claim, Step


def claim(kind):
    return Claim(kind=kind, reason=AfterSaleReason.DAMAGED, quantity=None, amount_minor=None)


async def test_goods_whose_price_went_back_are_not_exchanged(scene):
    await scene.policy()
    key = await scene.paid()
    await scene.parcels.ship(key, Parcel(carrier="SF", tracking_number="SF1"), "test")
    await scene.claims.open(key, claim(AfterSaleKind.REFUND), "first-key-0123456789")
    await scene.claims.step(key, 1, Step(event=AfterSaleEvent.SETTLE, actor="test"))

    asked = await scene.claims.open(key, claim(AfterSaleKind.EXCHANGE), "second-key-0123456789")

    assert asked is CaseRefused.NOTHING_LEFT
    assert len(await scene.claims.of_order(key)) == 1
