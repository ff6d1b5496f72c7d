"""Personal fields on a real shard: sealed, found, and sealed anew."""

import asyncio

import pytest

from app.fulfilment.delivery import tidy_delivery
from app.fulfilment.invoice import InvoiceKind, InvoiceWish
from app.kernel.errors import BadConfiguration, BrokenState, SealKeyMissing
from app.orders.life_store import move_order
from app.orders.order import OrderEvent

HOME = tidy_delivery("王小明", "13800138000", "北京市朝阳区建国路 88 号")
AWAY = tidy_delivery("Ann Lee", "+14155550100", "1 Main St")
KEYS = "SELECT DISTINCT key_id FROM order_deliveries UNION SELECT key_id FROM order_invoices"


async def test_details_are_read_back_and_changed(scene):
    key = await scene.desk.place()
    assert await scene.addresses.find(key) is None

    for details in (HOME, HOME, AWAY):
        assert await scene.addresses.change(key, details, actor="shopper")

    assert await scene.addresses.find(key) == AWAY
    assert await scene.events(key) == ["delivery_changed"] * 2, "the same again is no event"


async def test_no_column_holds_anything_in_clear(scene):
    key = await scene.desk.place()
    await scene.addresses.change(key, HOME, actor="shopper")
    wish = InvoiceWish(kind=InvoiceKind.PERSONAL, title=HOME.receiver, tax_number=None)
    await scene.addresses.wish_invoice(key, wish)

    rows = await scene.desk.rows("SELECT * FROM order_deliveries, order_invoices, order_events")
    stored = b"".join(
        value if isinstance(value, bytes) else str(value).encode()
        for row in rows
        for value in row.values()
    )
    for personal in (HOME.receiver, HOME.mobile, HOME.address, "13800138000"):
        assert personal.encode() not in stored


async def test_nothing_is_changed_once_it_is_shipped(scene):
    key = await scene.paid()
    await scene.addresses.change(key, HOME, actor="shopper")
    await scene.desk.execute("UPDATE orders SET state = 'shipped'")

    assert await scene.addresses.change(key, HOME, actor="shopper"), "the same is no change"
    assert not await scene.addresses.change(key, AWAY, actor="shopper")
    assert await scene.addresses.find(key) == HOME


async def test_a_timeline_is_not_filled_by_one_who_changes_their_mind(scene):
    key = await scene.desk.place()
    await scene.desk.execute("UPDATE orders SET last_event = 499")

    assert await scene.addresses.change(key, HOME, actor="shopper")
    assert not await scene.addresses.change(key, AWAY, actor="shopper")
    async with scene.desk.shard.transaction() as connection:
        await connection.execute("UPDATE orders SET state = 'paid', paid_at = now()")
        assert await move_order(connection, key, OrderEvent.SHIPPED, actor="test", detail={})


async def test_both_ways_of_writing_a_number_find_the_order(scene):
    mine, other = await scene.desk.place(), await scene.desk.place(shopper="bob")
    await scene.addresses.change(mine, HOME, actor="shopper")
    await scene.addresses.change(other, AWAY, actor="shopper")

    for mobile in ("13800138000", "+8613800138000"):
        assert [one.key for one in await scene.addresses.search(mobile, 10)] == [mine]
    assert await scene.addresses.search("13800138001", 10) == []


async def test_a_new_key_takes_over_row_by_row_while_both_live(scene):
    keys = [await scene.desk.place() for _ in range(7)]
    wish = InvoiceWish(kind=InvoiceKind.COMPANY, title="Acme", tax_number="91110000600037341L")
    for key in keys:
        await scene.addresses.change(key, HOME, actor="shopper")
        await scene.addresses.wish_invoice(key, wish)
    after = scene.addresses_with("b:seal", "a:open")
    both_before = scene.addresses_with("a:seal", "b:open")

    assert await after.reseal_once(3) == 6
    for reader in (after, both_before):
        assert [await reader.find(key) for key in keys] == [HOME] * 7
        assert len(await reader.search(HOME.mobile, 10)) == 7
        for key in keys:
            assert reader.open_invoice(key, await reader.sealed_invoice(key)) == wish
    while await after.reseal_once(3):
        pass
    assert [row["key_id"] for row in await scene.desk.rows(KEYS)] == ["b"]
    alone = scene.addresses_with("b:seal")
    assert [await alone.find(key) for key in keys] == [HOME] * 7
    assert len(await alone.search(HOME.mobile, 10)) == 7
    with pytest.raises(SealKeyMissing):
        await scene.addresses.find(keys[0])


async def test_nobody_starts_without_a_key_that_rows_are_sealed_under(scene):
    keys = [await scene.desk.place() for _ in range(3)]
    wish = InvoiceWish(kind=InvoiceKind.PERSONAL, title="Ann Lee", tax_number=None)
    await scene.addresses_with("b:seal").change(keys[0], HOME, actor="shopper")
    await scene.addresses_with("c:seal").change(keys[1], HOME, actor="shopper")
    await scene.addresses_with("d:seal").wish_invoice(keys[2], wish)

    await scene.addresses_with("d:seal", "c:open", "b:open", "a:open").check_keys()
    for missing in ("b", "c", "d"):
        there = [f"{kid}:open" for kid in {"b", "c", "d"} - {missing}]
        with pytest.raises(BadConfiguration, match=f"kids={missing},"):
            await scene.addresses_with("e:seal", *there).check_keys()
    with pytest.raises(BadConfiguration, match="kids=b and c and d,"):
        await scene.addresses_with("e:seal").check_keys()


async def test_sealing_anew_undoes_no_change_that_is_made_meanwhile(scene):
    keys = [await scene.desk.place() for _ in range(20)]
    for key in keys:
        await scene.addresses.change(key, HOME, actor="shopper")
    after = scene.addresses_with("b:seal", "a:open")

    async def reseal():
        while await after.reseal_once(2):
            pass

    changes = [after.change(key, AWAY, actor="shopper") for key in keys]
    done = await asyncio.gather(reseal(), reseal(), *changes)

    assert all(done[2:])
    assert [await after.find(key) for key in keys] == [AWAY] * 20


async def test_a_value_that_was_moved_to_another_order_does_not_open(scene):
    mine, other = await scene.desk.place(), await scene.desk.place()
    await scene.addresses.change(mine, HOME, actor="shopper")
    await scene.addresses.change(other, AWAY, actor="shopper")
    await scene.desk.execute(
        "UPDATE order_deliveries SET address = (SELECT address FROM order_deliveries"
        " WHERE seq = $1) WHERE seq = $2",
        mine.seq,
        other.seq,
    )

    with pytest.raises(BrokenState):
        await scene.addresses.find(other)
