"""Personal fields under a key that this process lacks: left out, counted, never written over."""

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from app.fulfilment.delivery import tidy_delivery
from app.fulfilment.desk import Fulfilment
from app.fulfilment.invoice import InvoiceKind, InvoiceWish
from app.fulfilment.tally import UnreadableTally
from app.kernel.errors import BrokenState, SealKeyMissing

HOME = tidy_delivery("王小明", "13800138000", "北京市朝阳区建国路 88 号")
AWAY = tidy_delivery("Ann Lee", "+14155550100", "1 Main St")
ACME = InvoiceWish(kind=InvoiceKind.COMPANY, title="Acme", tax_number="91110000600037341L")
FIELDS = ("delivery", "invoice")
COUNTED = "doorbuster_unreadable_fields_total"


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def acts(scene, registry):
    """Act with key b alone; what the scene writes is sealed under key a."""
    return Fulfilment(
        shards=scene.shards,
        addresses=scene.addresses_with("b:seal"),
        parcels=scene.parcels,
        claims=scene.claims,
        unreadable=UnreadableTally(registry),
        now=scene.desk.stage.now,
    )


async def test_what_has_no_key_is_shown_as_unreadable(scene, acts, registry):
    key, bare = await scene.desk.place(), await scene.desk.place()
    await scene.addresses.change(key, HOME, actor="shopper")
    await scene.addresses.wish_invoice(key, ACME)

    with capture_logs() as logs:
        shown = [msgspec.to_builtins(await acts.delivery_of_order(key)) for _ in range(3)]
        invoice = msgspec.to_builtins(await acts.invoice_of_order(key))
        assert await acts.delivery_of_order(bare) is await acts.invoice_of_order(bare) is None

    assert shown == [{"unreadable": True}] * 3
    assert invoice == {"kind": "company", "unreadable": True}
    counts = {one: registry.get_sample_value(COUNTED, {"field": one}) for one in FIELDS}
    assert counts == {"delivery": 3, "invoice": 1}
    assert [(one["event"], one["kid"]) for one in logs] == [("seal_key_missing", "a")]


async def test_each_missing_key_is_named_once(scene, acts):
    keys = [await scene.desk.place() for _ in range(3)]
    for key, kid in zip(keys, "aca", strict=True):
        await scene.addresses_with(f"{kid}:seal").change(key, HOME, actor="shopper")

    with capture_logs() as logs:
        for key in keys * 2:
            await acts.delivery_of_order(key)

    assert [one["kid"] for one in logs] == ["a", "c"]


async def test_nothing_is_written_over_what_cannot_be_read(scene, acts):
    key = await scene.desk.place()
    await scene.addresses.change(key, HOME, actor="shopper")

    with pytest.raises(SealKeyMissing):
        await acts.addresses.change(key, AWAY, actor="shopper")
    with pytest.raises(SealKeyMissing):
        await acts.addresses.find(key)

    assert await scene.addresses.find(key) == HOME
    assert await scene.events(key) == ["delivery_changed"]


async def test_what_was_tampered_with_is_no_missing_key(scene, acts):
    key = await scene.desk.place()
    await acts.addresses.change(key, HOME, actor="shopper")
    await scene.desk.execute("UPDATE order_deliveries SET mobile = address")

    with pytest.raises(BrokenState):
        await acts.delivery_of_order(key)
