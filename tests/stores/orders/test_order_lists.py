"""Orders as they are read back: one shopper's, a sale's, over all shards, page by page."""

from dataclasses import replace

import pytest

from app.orders.desk import newest
from app.orders.letters.store import (
    LetterFilter,
    LetterKind,
    drop_letters,
    list_letters,
    retry_letters,
)
from app.orders.order import OrderState
from app.orders.store import find_replays, insert_outbox, orders_of_sale, orders_of_shopper
from tests.stores.orders.bucket_rows import entry, key_hash, wish

NOW_MS = 1_790_000_000_000


@pytest.fixture
async def ordered(bucket):
    """Six orders a second apart, ann's every second one; the last is poison."""
    for number in range(6):
        shopper = "ann" if number % 2 == 0 else "bob"
        order = wish(shopper, key=f"k{number}", reference="\0" if number == 5 else "")
        await bucket.flush(entry(number, number, order, placed_at_ms=NOW_MS + 1_000 * number))
    return bucket


async def page(bucket, before=None, orders_max=2, state=None):
    return await orders_of_shopper(bucket.shard, "ann", before, state, orders_max)


async def test_a_shoppers_orders_come_newest_first_a_page_at_a_time(ordered):
    first = await page(ordered)
    assert [order.key.seq for order in first] == [4, 2]
    rest = await page(ordered, (first[-1].placed_at, first[-1].key))
    assert [order.key.seq for order in rest] == [0]


async def test_orders_of_one_instant_are_paged_without_loss(bucket):
    orders = [wish("ann", key=f"k{i}") for i in range(5)]
    await bucket.flush(entry(1, 0, *orders, placed_at_ms=NOW_MS))
    seen, before = [], None
    while found := await page(bucket, before):
        seen += [order.key.seq for order in found]
        before = (found[-1].placed_at, found[-1].key)
    assert seen == [4, 3, 2, 1, 0]


async def test_orders_are_filtered_by_state_and_by_sale(ordered):
    assert len(await page(ordered, state=OrderState.PENDING, orders_max=9)) == 3
    assert await page(ordered, state=OrderState.PAID) == []
    assert len(await orders_of_sale(ordered.shard, 1, None, None, 9)) == 5
    assert len(await orders_of_sale(ordered.shard, None, None, None, 9)) == 5
    assert await orders_of_sale(ordered.shard, 2, None, None, 9) == []


async def test_lists_of_several_shards_are_joined_newest_first(ordered):
    mine = await page(ordered, orders_max=9)
    theirs = [replace(order, key=order.key._replace(bucket=1)) for order in mine]
    joined = newest([mine, theirs], 4)

    assert [(order.key.bucket, order.key.seq) for order in joined] == [
        (1, 4), (0, 4), (1, 2), (0, 2),
    ]  # fmt: skip


async def test_replays_are_found_by_shopper_and_key_of_the_same_sale(ordered):
    wanted = [("ann", key_hash("k0")), ("bob", key_hash("k0")), ("ann", key_hash("k2"))]
    found = await find_replays(ordered.shard, 1, wanted)

    assert {pair: order.key.seq for pair, order in found.items()} == {wanted[0]: 0, wanted[2]: 2}
    assert await find_replays(ordered.shard, 2, wanted) == {}


# Dead letters.


async def test_letters_of_orders_are_read_and_dropped_and_never_retried(ordered):
    every = LetterFilter()
    (letter,) = await list_letters(ordered.shard, every, 0, 10)
    assert (letter["reason"], letter["seq"], letter["units"]) == ("unreadable", 5, 1)
    assert await list_letters(ordered.shard, every, letter["id"], 10) == []
    act = {"actor": "ann", "reason": "seen"}

    assert await retry_letters(ordered.shard, every, **act, dry_run=False) == 0
    assert await drop_letters(ordered.shard, every, **act, dry_run=True) == 1
    assert await drop_letters(ordered.shard, every, **act, dry_run=False) == 1
    assert await drop_letters(ordered.shard, every, **act, dry_run=False) == 0
    assert await list_letters(ordered.shard, every, 0, 10) == []
    rows = await ordered.rows("SELECT dropped_by, dropped_why FROM dead_letters")
    assert [tuple(row.values()) for row in rows] == [("ann", "seen")]
    assert [row["act"] for row in await ordered.rows("SELECT act FROM audit_rows")] == [
        "dead letters dropped"
    ]


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (LetterFilter(kind=LetterKind.ORDER), 1),
        (LetterFilter(kind=LetterKind.LEDGER), 0),
        (LetterFilter(reason="unreadable"), 1),
        (LetterFilter(reason="key_taken"), 0),
        (LetterFilter(sale=1), 1),
        (LetterFilter(sale=2), 0),
        (LetterFilter(ids=(987_654,)), 0),
    ],
)
async def test_letters_are_chosen_by_what_they_are(ordered, wanted, matches):
    assert len(await list_letters(ordered.shard, wanted, 0, 10)) == matches


async def test_a_fact_behind_a_letter_becomes_work_again(bucket):
    await bucket.execute(
        "INSERT INTO outbox (kind, business_id, payload, done_at) "
        "VALUES ('payment_captured', '1', '{}', now())"
    )
    await bucket.execute(
        "INSERT INTO dead_letters (kind, reason, raw, detail) "
        "SELECT 'ledger', 'unbalanced', '', jsonb_build_object('outbox_id', id) FROM outbox"
    )
    act = {"actor": "ann", "reason": "mended"}
    assert await retry_letters(bucket.shard, LetterFilter(), **act, dry_run=True) == 1
    assert await retry_letters(bucket.shard, LetterFilter(), **act, dry_run=False) == 1

    assert await bucket.rows("SELECT done_at FROM outbox") == [{"done_at": None}]
    assert await list_letters(bucket.shard, LetterFilter(), 0, 10) == []


async def test_a_fact_is_left_once(bucket):
    async with bucket.shard.transaction() as connection:
        for _ in range(2):
            await insert_outbox(connection, "order_shipped", "1", {"n": 1})
    assert len(await bucket.rows("SELECT 1 FROM outbox")) == 1
